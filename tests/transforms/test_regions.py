"""Labels from the outputs of either kind of network."""

from __future__ import annotations

import torch
from monai.data import MetaTensor

from common.transforms.regions import LabelProbabilitiesd, LabelsFromProbabilitiesd

LOGITS = torch.randn(3, 5, 6, 7, generator=torch.Generator().manual_seed(0)) * 2


def test_regions_are_decided_as_nnunet_does():
    """Each region overwrites the one around it, wherever it is likelier than not."""
    data = {"pred": LOGITS}
    probabilities = LabelProbabilitiesd("pred", regions=True)(data)
    found = LabelsFromProbabilitiesd("pred", regions=True)(probabilities)["pred"]
    assert found.shape == (1, 5, 6, 7)
    for place in torch.cartesian_prod(*map(torch.arange, (5, 6, 7))).tolist():
        whole, core, enhancing = LOGITS[:, *place].sigmoid().tolist()
        expected = 3 if enhancing > 0.5 else 1 if core > 0.5 else 2 if whole > 0.5 else 0
        assert found[0, *place] == expected
    assert {*found.unique().tolist()} == {0, 1, 2, 3}


def test_probabilities_of_labels_add_up():
    for regions, logits in ((True, LOGITS), (False, torch.cat([LOGITS, LOGITS[:1]]))):
        probabilities = LabelProbabilitiesd("pred", regions)({"pred": logits})["pred"]
        assert probabilities.shape == (4, 5, 6, 7)
        assert (probabilities >= 0).all()
        torch.testing.assert_close(probabilities.sum(0), torch.ones(5, 6, 7))
    nested = torch.tensor([2.0, 1.0, -1.0]).reshape(3, 1, 1, 1)
    whole, core, enhancing = nested.sigmoid().flatten().tolist()
    found = LabelProbabilitiesd("pred", regions=True)({"pred": nested})["pred"].flatten()
    torch.testing.assert_close(found, torch.tensor([1 - whole, core - enhancing, whole - core, enhancing]))


def test_the_likeliest_of_labels():
    logits = torch.randn(4, 5, 6, 7)
    probabilities = LabelProbabilitiesd("pred")({"pred": logits})
    assert torch.equal(probabilities["pred"], logits.softmax(0))
    assert torch.equal(LabelsFromProbabilitiesd("pred")(probabilities)["pred"], logits.argmax(0, keepdim=True))


def test_nothing_is_background_and_metadata_stay():
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])).double()
    for regions in (True, False):
        empty = MetaTensor(torch.zeros(4, 2, 2, 2), affine=affine)
        found = LabelsFromProbabilitiesd("pred", regions)({"pred": empty})["pred"]
        assert not found.any() and torch.equal(found.affine, affine)
        logits = MetaTensor(torch.zeros(3 if regions else 4, 2, 2, 2), affine=affine)
        assert torch.equal(LabelProbabilitiesd("pred", regions)({"pred": logits})["pred"].affine, affine)
