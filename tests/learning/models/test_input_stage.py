"""Windows inside the network: fixed, or learned from the fixed ones on."""

import numpy as np
import pytest
import torch

from fl_rsna.imaging.dicom.hounsfield import HU_OFFSET, WINDOWS_HU
from fl_rsna.learning.models.classifier import InputStage, LearnedWindow, build_model, personal_names, set_training
from fl_rsna.learning.models.flat import layout_sha256
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, Norm, Trainable, Window
from fl_rsna.task import ICH

LITE0 = ModelConfig(image_size=32)


def built(**words: object):  # type: ignore[no-untyped-def]
    return build_model(ModelConfig(image_size=32, **words), ICH, ImageKind.hu, seed=0)  # type: ignore[arg-type]


def test_a_learned_window_starts_as_the_three_windows() -> None:
    """1/255 and 254/255 at the edges, a half in the middle, and never falling."""
    stage = LearnedWindow(ImageKind.hu)
    for channel, (centre, width) in enumerate(WINDOWS_HU):
        at = torch.tensor([centre - width / 2, centre, centre + width / 2])
        grey = stage.grey(at.view(1, 1, 1, -1) + HU_OFFSET)[0, channel, 0]
        np.testing.assert_allclose(grey.detach(), [1 / 255, 0.5, 254 / 255], atol=1e-5)
    np.testing.assert_allclose(stage.windows_hu(), WINDOWS_HU, rtol=1e-5)
    every = torch.arange(4096.0).view(1, 1, 64, 64)
    rising = stage.grey(every).detach().flatten(2).diff()
    assert bool((rising >= 0).all())
    fixed = InputStage(ImageKind.hu).grey(every)
    assert float((stage.grey(every) - fixed).detach().abs().max()) < 0.21  # a sigmoid and its ramp


def test_a_stack_is_its_slices_side_by_side() -> None:
    images = 1000 + 100 * torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for stage in (InputStage(ImageKind.hu), LearnedWindow(ImageKind.hu)):
        whole = stage(images)
        assert whole.shape == (2, 9, 8, 8)
        for place in range(3):
            assert torch.equal(whole[:, 3 * place : 3 * place + 3], stage(images[:, place : place + 1]))
    colour = 255 * torch.rand(2, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    stage = InputStage(ImageKind.windows)
    assert torch.equal(stage(colour), torch.cat([stage(colour[:, :3]), stage(colour[:, 3:])], 1))


def test_the_window_is_trained_and_six_numbers_of_the_layout() -> None:
    plain, learned = built(), built(window=Window.learned)
    extra = set(learned.state_dict()) - set(plain.state_dict())
    assert extra == {"input_stage.weight", "input_stage.bias"}
    assert sum(learned.state_dict()[name].numel() for name in extra) == 6
    assert layout_sha256(plain) != layout_sha256(learned)
    set_training(learned, Norm.frozen, Trainable.all)
    learned(torch.full((2, 1, 32, 32), 1060.0)).sum().backward()
    for name in ("weight", "bias"):
        assert bool(getattr(learned.input_stage, name).grad.abs().gt(0).all())


def test_what_is_personal_is_what_the_words_say() -> None:
    personal = built(window=Window.personal)
    of_window = ["input_stage.weight", "input_stage.bias"]
    assert personal_names(personal, ModelConfig(window=Window.personal)) == of_window
    assert personal_names(personal, ModelConfig(window=Window.learned)) == []
    both = personal_names(personal, ModelConfig(window=Window.personal, norm=Norm.local_stats))
    assert both[:2] == of_window
    assert {name.rpartition(".")[2] for name in both[2:]} == {"running_mean", "running_var"}
    assert set(both) <= set(personal.state_dict())


def test_windowed_images_have_no_window_to_learn() -> None:
    with pytest.raises(ValueError, match=r"^model\.window: expected fixed with images of kind windows"):
        build_model(ModelConfig(window=Window.learned), ICH, ImageKind.windows, seed=0)


def test_grey_is_the_same_in_all_channels_from_black_to_white() -> None:
    values = torch.tensor([0.0, 65535 / 2, 65535.0]).view(1, 1, 1, 3)
    grey = InputStage(ImageKind.grey).grey(values)
    torch.testing.assert_close(grey, torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3).expand(1, 3, 1, 3))
    with pytest.raises(ValueError, match=r"^model\.window: expected fixed with images of kind grey"):
        LearnedWindow(ImageKind.grey)
