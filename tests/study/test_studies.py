"""Studies of models whose answers are known, through the files that are served."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from torch import nn

from adaptkit.errors import DataError, ModelError
from adaptkit.export.onnx import export_onnx
from adaptkit.loading.data import load_data
from adaptkit.metrics.corruptions import CORRUPTIONS, gaussian_noise
from adaptkit.metrics.estimate import ALIKE
from adaptkit.runtime import AdaptedModel
from adaptkit.specs import DataSpec, Normalization
from adaptkit.studies import STUDIES
from adaptkit.study.attacked import KlRobustness, RobustAccuracy
from adaptkit.study.base import measure_all
from adaptkit.study.corrupted import Corruptions
from adaptkit.study.sent import Communication
from adaptkit.study.smashed import SmashedData
from adaptkit.study.subject import Subject, together
from tests.cli import conditional

MEAN, STD = 0.5, 0.25


class Light(nn.Module):
    """Class 1 where the mean pixel is above a half: scores are −m and m, m the mean of normalized pixels."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        mean = self.scale * x.mean(dim=(1, 2, 3))
        return torch.stack([-mean, mean], dim=1)


LEVELS = np.array([0.1, 0.3, 0.46, 0.49, 0.51, 0.54, 0.7, 0.9])
PIXELS = np.broadcast_to((255 * LEVELS).round().astype(np.uint8)[:, None, None], (8, 8, 8))
TARGET = np.array([0, 0, 0, 0, 1, 1, 1, 0])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "d.npz"
    train = {"x_train": np.tile(PIXELS, (10, 1, 1)), "y_train": np.tile(TARGET, 10)}
    np.savez(file, x_test=PIXELS, y_test=TARGET, **train)
    normalize = Normalization(mean=(MEAN,), std=(STD,))
    return load_data(DataSpec(npz=str(file), normalize=normalize, calibration=8, batch_size=3), 0)


def subject(data, folder, served=None, network=None, **export) -> Subject:
    path = folder / "model.onnx"
    served = Light() if served is None else served
    export_onnx(served.eval(), (torch.zeros(2, 1, 8, 8),), path, mean=(MEAN,), std=(STD,), **export)
    return Subject(path, AdaptedModel.load(path), data, lambda: network or served)


@pytest.mark.parametrize("in_graph", [False, True])
def test_pixels_are_normalized_once_wherever_that_is_done(data, tmp_path, in_graph):
    from adaptkit.specs import ExportSpec

    seen = subject(data, tmp_path, spec=ExportSpec(normalize_in_graph=in_graph))
    x, y = together(seen.draw(data.test, 100, 0))
    assert torch.equal(x, torch.from_numpy(PIXELS / np.float32(255))[:, None])
    assert y.tolist() == TARGET.tolist()
    wanted = (PIXELS[:, 0, 0] / 255 - MEAN) / STD
    assert seen.outputs(x)[:, 1] == pytest.approx(wanted, abs=1e-5)
    assert seen.network()(x)[:, 1].tolist() == pytest.approx(wanted, abs=1e-5)


def test_a_draw_is_of_all_samples_in_their_order_and_of_the_seed(data, tmp_path):
    seen = subject(data, tmp_path)
    drawn = [together(seen.draw(data.test, 3, seed))[0][:, 0, 0, 0] for seed in range(30)]
    assert all(len(set(each.tolist())) == 3 and each.tolist() == sorted(each.tolist()) for each in drawn)
    assert len({value for each in drawn for value in each.tolist()}) == 8
    assert torch.equal(drawn[0], together(seen.draw(data.test, 3, 0))[0][:, 0, 0, 0])


@pytest.mark.parametrize(("radius", "robust"), [(0.005, 7), (0.02, 5), (0.05, 3), (0.3, 1)])
def test_robust_accuracy_is_that_of_samples_too_far_from_the_edge(data, tmp_path, radius, robust):
    found = RobustAccuracy(radius=radius, steps=10).measure(subject(data, tmp_path))
    assert found["robust_accuracy.clean"].value == 7 / 8
    assert found["robust_accuracy"].value == robust / 8
    assert found["robust_accuracy"].interval == "exact (Clopper-Pearson)"


def test_changes_are_judged_on_what_is_served(data, tmp_path):
    turned = Light(-1.0)
    found = RobustAccuracy(radius=0.3, steps=5).measure(subject(data, tmp_path, served=turned, network=Light()))
    # Changes that fool the network push the other one where it is right; but that it has to be before, too.
    assert found["robust_accuracy.clean"].value == found["robust_accuracy"].value == 1 / 8


def test_kl_robustness_is_one_over_the_mean_of_the_divergences_at_the_edge_of_the_ball(data, tmp_path):
    radius = 0.05
    found = KlRobustness(radius=radius, steps=20, restarts=8).measure(subject(data, tmp_path))["kl_robustness"]
    worst = []
    for level in PIXELS[:, 0, 0] / 255:
        mean = (level - MEAN) / STD
        p = softmax([-mean, mean])
        moved = [(np.clip(level + step, 0, 1) - MEAN) / STD for step in (-radius, radius)]
        worst.append(max(float(p @ np.log(p / softmax([-each, each]))) for each in moved))
    assert found.value == pytest.approx(1 / np.mean(worst), rel=1e-3)
    assert found.low < found.value < found.high


def test_kl_robustness_of_what_is_certain_is_a_number(data, tmp_path):
    class Certain(nn.Module):
        def forward(self, x):
            return (x.mean(dim=(1, 2, 3))[:, None] > torch.tensor([9.0, -9.0])).float()

    found = KlRobustness(radius=0.05, steps=1).measure(subject(data, tmp_path, served=Certain(), network=Light()))
    assert (found["kl_robustness"].value, found["kl_robustness"].interval) == (1e6, ALIKE)


def test_corruptions_are_counted_as_a_loop_over_images_counts_them(data, tmp_path):
    settings = Corruptions(kinds=("jpeg",), severities=(1, 5))
    found = settings.measure(subject(data, tmp_path))
    hits = []
    for image, target in zip(PIXELS, TARGET, strict=True):
        for quality in (80, 40):
            stored = io.BytesIO()
            Image.fromarray(image).save(stored, "JPEG", quality=quality)
            hits.append((np.asarray(Image.open(stored)).mean() / 255 > 0.5) == target)
    assert list(found) == ["corruptions", "corruptions.clean", "corruptions.jpeg"]
    assert found["corruptions.jpeg"].value == found["corruptions"].value == pytest.approx(np.mean(hits))
    assert found["corruptions.clean"].value == 7 / 8
    one = Corruptions(kinds=("jpeg",), severities=(5,)).measure(subject(data, tmp_path))["corruptions.jpeg"]
    assert one.interval == "exact (Clopper-Pearson)"


class Upset(Light):
    """Turns its answers round where pixels differ from one another."""

    def forward(self, x):
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        rough = ((x - mean).abs().mean(dim=(1, 2, 3)) > 0.1).float()[:, None]
        return super().forward(x) * (1 - 2 * rough)


def test_the_mean_is_of_corrupted_images_alone(data, tmp_path):
    study = Corruptions(kinds=("gaussian_noise", "gaussian_blur"), severities=(4, 5))
    found = study.measure(subject(data, tmp_path, served=Upset()))
    noise, blur = (found[f"corruptions.{kind}"].value for kind in study.kinds)
    assert (found["corruptions.clean"].value, blur) == (7 / 8, 7 / 8)
    assert noise <= 3 / 8
    assert found["corruptions"].value == pytest.approx((noise + blur) / 2)


def test_noise_differs_from_batch_to_batch_and_is_that_of_the_seed(data, tmp_path, monkeypatch):
    added = []

    def spy(images, severity, seed):
        noisy = gaussian_noise(images, severity, seed)
        added.append((noisy - images)[0])
        return noisy

    monkeypatch.setitem(CORRUPTIONS, "gaussian_noise", spy)
    study = Corruptions(kinds=("gaussian_noise",), severities=(1,))
    seen = subject(data, tmp_path)
    assert study.measure(seen) == study.measure(seen)
    first, second, _, again = (each.flatten()[:40] for each in added[:4])
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.6  # the same noise would be cut off at black and white alone
    assert torch.equal(first, again)
    assert study.measure(seen)["corruptions"].samples == 8
    assert Corruptions(samples=5).measure(seen)["corruptions"].samples == 5


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged")
    conditional.write(folder)
    splits = load_data(DataSpec(npz=str(folder / "d.npz"), calibration=4), 0)

    def open_one(name: str) -> Subject:
        return Subject(folder / name, AdaptedModel.load(folder / name), splits, lambda: nn.Identity())

    return open_one


def test_bytes_are_those_of_the_samples_that_cross(staged):
    found = Communication(cut=1, up=8e3, down=8e3, round_trip=1.0).measure(staged("run"))
    crossing = 4
    # Four of 16 samples are not sure at the first exit; each sends one float and gets two.
    assert found["communication.up"].value == pytest.approx(crossing / 4)
    assert found["communication.down"].value == pytest.approx(8 / 4)
    assert found["communication"].value == pytest.approx((crossing + 8) / 4)
    assert found["communication.seconds"].value == pytest.approx((1 + (crossing + 8) / 1e3) / 4)
    assert 0 <= found["communication.up"].low < crossing / 4 < found["communication.up"].high <= crossing
    assert found["communication.up"].samples == 16
    assert not found["communication.up"].higher_is_better


def test_what_every_sample_sends_is_exact(staged):
    for name in ("run", "plain.onnx"):
        found = Communication().measure(staged(name))
        assert list(found) == ["communication", "communication.up", "communication.down"]
        shown = found["communication"]
        assert (shown.value, shown.low, shown.high) == (72, 72, 72)
        assert shown.interval == "exact: the same for every sample"


class Copies(nn.Module):
    """Keeps the picture in one layer, and its mean alone in the next."""

    def __init__(self) -> None:
        super().__init__()
        self.copy, self.pool, self.out = nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten()

    def forward(self, x):
        mean = self.out(self.pool(self.copy(x)))
        return torch.cat([-mean, mean], dim=1)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Pictures of which every pixel is drawn, each twice as much light in one half of them."""
    folder = tmp_path_factory.mktemp("noisy")
    x = np.random.default_rng(0).integers(0, 128, (900, 8, 8)).astype(np.uint8)
    y = np.arange(900) % 2
    x[y == 1] += 100
    np.savez(folder / "d.npz", x_train=x[:700], y_train=y[:700], x_test=x[700:], y_test=y[700:])
    spec = DataSpec(npz=str(folder / "d.npz"), normalize=Normalization(mean=(MEAN,), std=(STD,)), validation=400)
    return load_data(spec.model_copy(update={"calibration": 20}), 0)


def test_a_copy_of_the_picture_tells_more_than_its_mean(noisy, tmp_path):
    seen = subject(noisy, tmp_path, served=Copies())
    all_of_it, little = (SmashedData(layer=layer, samples=200, epochs=20).measure(seen) for layer in ("copy", "pool"))
    names = ["psnr", "ssim", "blind_psnr", "blind_ssim", "distance_correlation", "mutual_information"]
    assert list(all_of_it) == list(little) == [f"smashed_data.{name}" for name in names]
    assert all(each.samples == 200 and not each.higher_is_better for each in all_of_it.values())
    for name in ("psnr", "ssim", "mutual_information"):
        assert all_of_it[f"smashed_data.{name}"].low > little[f"smashed_data.{name}"].high
    assert all_of_it["smashed_data.distance_correlation"].value == pytest.approx(1)
    assert little["smashed_data.psnr"].low > little["smashed_data.blind_psnr"].high  # of light and dark it tells


def test_the_decoder_sees_no_test_sample(noisy, tmp_path, monkeypatch):
    given = []

    def spy(known, known_images, sent, images, **settings):
        given.extend([known_images, images])
        raise DataError("seen")

    monkeypatch.setattr("adaptkit.metrics.inversion.inversion_attack", spy)
    with pytest.raises(DataError, match="seen"):
        SmashedData(layer="copy", samples=100).measure(subject(noisy, tmp_path, served=Copies()))
    learnt, judged = ({each.numpy().tobytes() for each in images} for images in given)
    assert (len(learnt), len(judged), learnt & judged) == (100, 100, set())


def test_what_crosses_a_cut_is_what_the_next_stage_takes(staged):
    stages = staged("run").model.runner
    x = np.array([0.1, 0.501, 0.9, 0.499], np.float32)[:, None, None, None] * np.ones((1, 1, 4, 4), np.float32)
    crossing, going = stages.crossing(x, 1)
    assert going.tolist() == [1, 3]
    assert crossing.reshape(2, -1)[:, 0].tolist() == pytest.approx([0.1, -0.1], abs=1e-3)
    assert stages.crossing(x, 0)[1].tolist() == [0, 1, 2, 3]


def test_activations_stand_beside_the_images_that_sent_them(staged):
    seen = staged("run")
    images, _ = together(seen.draw(seen.data.test, 100, 0))
    sent, senders = SmashedData()._sent(seen, images)
    assert senders[:, 0, 0, 0].tolist() == pytest.approx([125 / 255, 130 / 255] * 2)
    assert sent.flatten().tolist() == pytest.approx((100 * (senders[:, 0, 0, 0] - 0.5)).tolist(), abs=1e-3)


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (
            SmashedData(cut=2),
            "^smashed_data: there is no stage 2 to cut an early exit before; give `layer` to",
        ),
        (SmashedData(layer="conv"), "^smashed_data: there is none"),
        (
            SmashedData(samples=300),
            "^smashed_data: 3 samples of a split are sent, of 300 at most;",
        ),
        (Communication(cut=3), "^communication: the model has 2 stages: the cut is from 0 to 2; got 3"),
        (RobustAccuracy(), "^robust_accuracy: there is none"),
    ],
)
def test_what_cannot_be_measured_says_so(staged, study, message):
    def none() -> nn.Module:
        raise ModelError("there is none")

    seen = staged("run")
    seen = Subject(seen.path, seen.model, seen.data, none)
    with pytest.raises((DataError, ModelError), match=message):
        study.measured(seen)
    shown = measure_all((study,), seen, strict=False)
    assert list(shown) == [study.name]
    assert shown[study.name].value is None
    assert f"{study.name}: {shown[study.name].problem}".startswith(message.removeprefix("^")[:30])


def test_images_are_needed_where_images_are_changed():
    assert Corruptions().problem((64,)) == "needs images, C × H × W; samples are 64"
    assert Corruptions().problem((3, 8, 8)) is None
    assert SmashedData().problem(()) == "needs images, C × H × W; samples are one number"
    assert RobustAccuracy().problem((64,)) is None


@pytest.mark.parametrize("name", STUDIES)
def test_the_table_names_what_is_in_it(name):
    assert STUDIES[name].name == name
    assert STUDIES[name]().name == name
