import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from adaptkit.distillation.losses import decoupled_loss
from adaptkit.errors import AdaptkitError, DataError, RunFolderError
from adaptkit.loading.batches import Batches
from adaptkit.metrics.task import first_output
from adaptkit.training.checkpoint import CHECKPOINT, state_sha256
from adaptkit.training.fit import fit
from adaptkit.training.losses import supervised
from adaptkit.training.optimizer import build_optimizer
from adaptkit.training.schedule import rate_factor
from adaptkit.training.settings import FitSettings

PLAIN = FitSettings(schedule="constant", learning_rate=0.1, weight_decay=0.01, channels_last=False)


def toy(count: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(count, 6, generator=generator)
    return x, (x[:, 0] + x[:, 1] > 0).long()


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))


class Recorder:
    def __init__(self):
        self.lines = []
        self.closed = 0

    def update(self, done, total, text=""):
        self.lines.append((done, total, text))

    def close(self):
        self.closed += 1


def test_sgd_is_the_update_of_the_textbook():
    """Nesterov: v ← μ v + g + λ w, w ← w - r (g + λ w + μ v), written out by hand; the bias is not decayed."""
    x, y = toy(32)
    torch.manual_seed(0)
    model = nn.Linear(6, 2)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    fit(model, [(x, y)], epochs=5, settings=PLAIN)
    velocity = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for _ in range(5):
        share = torch.softmax(x @ weight.T + bias, 1) - F.one_hot(y, 2)
        gradients = [share.T @ x / 32 + 0.01 * weight, share.mean(0)]
        velocity = [0.9 * v + g for v, g in zip(velocity, gradients, strict=True)]
        weight, bias = (w - 0.1 * (g + 0.9 * v) for w, g, v in zip((weight, bias), gradients, velocity, strict=True))
    torch.testing.assert_close(model.weight.detach(), weight)
    torch.testing.assert_close(model.bias.detach(), bias)


def test_biases_and_norms_are_not_decayed():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.LayerNorm([4, 2, 2]),
        nn.GroupNorm(2, 4),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    model[0].bias.requires_grad_(False)
    optimizer = build_optimizer(model, FitSettings(optimizer="adamw", weight_decay=0.3))
    decayed, free = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[5].weight)}
    assert len(free["params"]) == 7
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_same_seed_same_bits_and_the_random_state_comes_back(optimizer):
    hashes = []
    for seed in (0, 0, 1):
        model = net()
        torch.manual_seed(len(hashes))
        before = torch.random.get_rng_state()
        fit(model, toy(), epochs=2, settings=FitSettings(optimizer=optimizer, learning_rate=0.01), seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        hashes.append(state_sha256(model))
    assert hashes[0] == hashes[1] != hashes[2]


def test_it_learns_and_ends_in_eval_mode():
    model = net()
    result = fit(model, toy(400), epochs=8, validation=toy(50))
    assert result.train_accuracy > 0.9
    assert result.history[-1].validation_accuracy > 0.9
    assert result.history[0].train_loss > result.train_loss
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 5), (1, 10), (2.3, 23), (0.001, 1)])
def test_fractions_of_an_epoch(epochs, steps):
    result = fit(net(), Batches(*toy(100), batch_size=10, shuffle=True), epochs=epochs)
    assert result.steps == steps
    assert len(result.history) == math.ceil(epochs)
    assert result.epochs == epochs


def test_each_step_gets_the_rate_of_the_schedule(monkeypatch):
    rates = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), step(self)))
    fit(net(), Batches(*toy(100), batch_size=10), epochs=2, settings=FitSettings(schedule="cosine", learning_rate=0.2))
    assert rates == [0.2 * rate_factor("cosine", number, 20) for number in range(20)]


def test_the_average_is_what_remains():
    x, y = toy(64)
    settings = PLAIN.model_copy(update={"ema": 0.8})
    model = net()
    batches = Batches(x, y, batch_size=16)
    plain, average = [], None
    for steps in range(1, 9):
        copy = net()
        fit(copy, batches, epochs=steps / 4, settings=PLAIN)
        plain.append({name: value.clone() for name, value in copy.state_dict().items()})
    average = {name: value.clone() for name, value in net().state_dict().items()}
    for number, state in enumerate(plain):
        decay = min(0.8, (1 + number) / (10 + number))
        average = {
            name: decay * average[name] + (1 - decay) * value if value.is_floating_point() else value
            for name, value in state.items()
        }
    fit(model, batches, epochs=2, settings=settings)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, average[name])


def test_validation_sees_the_average():
    seen = fit(net(), toy(), epochs=1, settings=FitSettings(ema=0.5), validation=toy(50)).history[0].validation_accuracy
    model = net()
    fit(model, toy(), epochs=1, settings=FitSettings(ema=0.5))
    x, y = toy(50)
    assert seen == pytest.approx(float((model(x).argmax(1) == y).float().mean()))


def test_gradients_are_clipped():
    model, clipped = nn.Linear(6, 2), nn.Linear(6, 2)
    clipped.load_state_dict(model.state_dict())
    before = model.weight.detach().clone()
    x, y = toy(16)
    settings = PLAIN.model_copy(update={"momentum": 0.0, "weight_decay": 0.0})
    fit(model, [(100 * x, y)], epochs=1, settings=settings)
    fit(clipped, [(100 * x, y)], epochs=1, settings=settings.model_copy(update={"gradient_clip": 0.5}))
    moved = torch.cat([(clipped.weight - before).flatten()]).norm()
    assert moved <= 0.1 * 0.5 + 1e-6 < (model.weight - before).norm()


def test_channels_last_is_only_inside():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 2))
    seen = []
    hook = model[0].register_forward_pre_hook(
        lambda _, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    fit(model, (torch.randn(8, 3, 8, 8), torch.arange(8) % 2), epochs=1)
    hook.remove()
    assert seen == [True]
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_auxiliary_heads_are_trained():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.aux = nn.Linear(6, 2), nn.Linear(6, 2)

        def forward(self, x):
            return (self.main(x), self.aux(x)) if self.training else self.main(x)

    model = TwoHeads()
    before = model.aux.weight.detach().clone()
    x, y = toy(16)
    loss, output = supervised(F.cross_entropy)(model, x, y)
    assert torch.equal(output, model.main(x))
    torch.testing.assert_close(loss, F.cross_entropy(model.main(x), y) + 0.3 * F.cross_entropy(model.aux(x), y))
    fit(model, toy(), epochs=1, validation=toy(8))
    assert not torch.equal(model.aux.weight, before)


def test_a_loss_of_the_users_own():
    x, _ = toy()
    target = x @ torch.ones(6, 1)
    model = nn.Linear(6, 1)
    settings = FitSettings(learning_rate=0.05, weight_decay=0)
    result = fit(model, (x, target), epochs=60, loss=supervised(F.mse_loss), settings=settings)
    assert result.train_accuracy is None
    assert result.train_loss < 0.05


def test_progress_shows_loss_and_accuracy_and_is_closed():
    progress = Recorder()
    fit(net(), toy(), epochs=1, progress=progress)
    assert progress.lines[-1][:2] == (1, 1)
    assert "loss 0." in progress.lines[-1][2]
    assert "accuracy 0." in progress.lines[-1][2]
    assert progress.closed == 1


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_after(steps: int):
    """A cross entropy that ends the process, as it were, after some steps."""
    count = itertools.count(1)

    def loss(model, x, y):
        if next(count) > steps:
            raise Killed
        return supervised(F.cross_entropy)(model, x, y)

    return loss


@pytest.mark.parametrize("steps", [1, 4, 6, 7, 14])
@pytest.mark.parametrize("loader", [False, True])
def test_a_stopped_fit_goes_on_to_the_same_bits(tmp_path, steps, loader):
    x, y = toy()
    source = (
        DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
        if loader
        else Batches(x, y, batch_size=16, shuffle=True)
    )
    options = {"epochs": 2.5, "settings": FitSettings(ema=0.9, checkpoint_seconds=0), "seed": 5}
    whole, stopped = net(), net()
    expected = fit(whole, source, **options)
    with pytest.raises(Killed):
        fit(stopped, source, loss=killed_after(steps), workspace=tmp_path, **options)
    taken = itertools.count()
    resumed = net()

    def counting(model, x, y):
        next(taken)
        return supervised(F.cross_entropy)(model, x, y)

    result = fit(resumed, source, loss=counting, workspace=tmp_path, **options)
    assert next(taken) == 15 - steps
    assert state_sha256(resumed) == state_sha256(whole)
    assert result == expected


def test_a_finished_fit_returns_at_once(tmp_path):
    options = {"epochs": 2, "settings": FitSettings(ema=0.9), "workspace": tmp_path / "fit"}
    model, again = net(), net()
    result = fit(model, toy(), **options)
    assert fit(again, toy(), loss=killed_after(0), **options) == result
    assert state_sha256(again) == state_sha256(model)


@pytest.mark.parametrize("change", [{"epochs": 3}, {"seed": 1}, {"settings": FitSettings(learning_rate=0.01)}])
def test_the_checkpoint_of_another_fit_is_refused(tmp_path, change):
    options = {"epochs": 1, "seed": 0, "settings": FitSettings()}
    fit(net(), toy(), workspace=tmp_path, **options)
    with pytest.raises(RunFolderError, match=r"fit\.pt belongs to another fit"):
        fit(net(), toy(), workspace=tmp_path, **{**options, **change})


def test_a_broken_checkpoint_is_named(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"half")
    with pytest.raises(RunFolderError, match=r"fit\.pt is broken; delete it"):
        fit(net(), toy(), epochs=1, workspace=tmp_path)


def test_a_workspace_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot make the folder"):
        fit(net(), toy(), epochs=1, workspace=tmp_path / "file" / "fit")


def state_after(steps: int, batches: Batches, settings: FitSettings) -> str:
    """What a fit of that many steps leaves."""
    model = net()
    fit(model, batches, epochs=steps / len(batches), settings=settings)
    return state_sha256(model)


def test_data_that_are_no_numbers_leave_the_last_good_weights(tmp_path):
    x, y = toy()
    x[40] = math.nan
    batches, model = Batches(x, y, batch_size=16), net()
    settings = PLAIN.model_copy(update={"checkpoint_seconds": 0.0})
    with pytest.raises(DataError, match=r"batch 3 of 6 in epoch 1 holds values that are not finite.* as it was before"):
        fit(model, batches, epochs=1, settings=settings, workspace=tmp_path)
    assert state_sha256(model) == state_after(2, batches, settings)
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == 2


def broken_at(step: int, breaks):
    """A cross entropy of which something is changed in one step."""
    count = itertools.count(1)

    def criterion(output, y):
        loss = F.cross_entropy(output, y)
        return breaks(loss, output) if next(count) == step else loss

    return supervised(criterion)


@pytest.mark.parametrize("settings", [PLAIN, PLAIN.model_copy(update={"gradient_clip": 1.0, "optimizer": "adamw"})])
@pytest.mark.parametrize(
    ("breaks", "what"),
    [
        (lambda loss, output: loss * math.inf, "loss is inf"),
        (lambda loss, output: loss + math.nan, "loss is nan"),
        (lambda loss, output: loss + (output * 0).abs().sqrt().sum(), r"gradient is nan \(the loss 0"),
    ],
)
def test_a_step_that_is_no_number_leaves_the_weights_before_it(settings, breaks, what):
    batches, model = Batches(*toy(), batch_size=16), net()
    clip = "set gradient_clip, for example to 1.0" if settings.gradient_clip is None else r"gradient_clip \(now 1\)"
    kept = "the model is as it was before that step"
    message = rf"{what}.* in step 9 of 12, {kept}: lower learning_rate \(now 0.1\) or {clip}$"
    with pytest.raises(AdaptkitError, match=message):
        fit(model, batches, epochs=2, settings=settings, loss=broken_at(9, breaks))
    expected = net()
    with pytest.raises(Killed):
        fit(expected, batches, epochs=2, settings=settings, loss=killed_after(8))
    assert state_sha256(model) == state_sha256(expected)
    assert not model.training


def test_a_fit_that_runs_away_leaves_numbers():
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    settings = PLAIN.model_copy(update={"learning_rate": 1e6})
    with pytest.raises(AdaptkitError, match=r"lower learning_rate \(now 1e\+06\)"):
        fit(model, toy(), epochs=200, settings=settings)
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_a_batch_of_one_sample_is_named_where_it_cannot_be_normalized():
    loader = DataLoader(TensorDataset(*toy(33)), batch_size=16)
    with pytest.raises(DataError, match=r"batch 3 of 3 in epoch 1 has one sample, .* drop_last=True"):
        fit(net(), loader, epochs=2)
    assert fit(nn.Linear(6, 2), loader, epochs=2).steps == 6


@pytest.mark.parametrize("label", [2, 7, -1])
@pytest.mark.parametrize(
    "loss",
    [None, supervised(lambda output, y: decoupled_loss(output, output.detach(), y, 4.0, 1.0, 1.0))],
)
def test_a_label_without_an_output_is_named(label, loss):
    x, y = toy()
    y[70] = label
    message = rf"batch 5 of 6 in epoch 1 has the label {label}, the model 2 outputs: labels go from 0 to 1"
    with pytest.raises(DataError, match=message):
        fit(net(), Batches(x, y, batch_size=16), epochs=1, loss=loss)


@pytest.mark.parametrize("error", [IndexError("7 is out of bounds"), ValueError("no"), RuntimeError("no")])
def test_other_errors_of_a_loss_are_left_as_they_are(error):
    def loss(model, x, y):
        raise error

    with pytest.raises(type(error), match=str(error)):
        fit(net(), toy(), epochs=1, loss=loss)


def test_an_error_of_the_model_is_left_as_it_is():
    class Wrong(nn.Linear):
        def forward(self, x):
            return super().forward(x)[:, [9]]

    with pytest.raises(IndexError, match="out of bounds"):
        fit(Wrong(6, 2), toy(), epochs=1)


@pytest.mark.parametrize("epochs", [0, -1, math.nan, math.inf])
def test_epochs_that_are_none(epochs):
    with pytest.raises(AdaptkitError, match="more than 0 epochs"):
        fit(net(), toy(), epochs=epochs)


def test_nothing_to_train():
    with pytest.raises(AdaptkitError, match="nothing to train"):
        fit(nn.Flatten(), toy(), epochs=1)


def test_a_loader_that_ends_too_soon():
    class Liar(list):
        def __len__(self):
            return 9

    with pytest.raises(DataError, match="said it has 9 batches, and ended after 1"):
        fit(net(), Liar([toy()]), epochs=1)


def test_bfloat16_is_for_products_only():
    """Weights, gradients and the loss stay float32; the inner activations do not."""
    x, y = toy()
    inner, outputs = [], []
    model = net()
    model[0].register_forward_hook(lambda _, __, output: inner.append(output.dtype))

    def loss(trained, x, y):
        output = first_output(trained(x))
        outputs.append(output.dtype)
        return F.cross_entropy(output, y), output

    result = fit(model, (x, y), epochs=30, settings=FitSettings(precision="bfloat16"), loss=loss)
    assert set(inner) == {torch.bfloat16}
    assert set(outputs) == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert result.train_accuracy > 0.9


def test_bfloat16_comes_close_to_float32():
    ends = []
    for precision in ("float32", "bfloat16"):
        model = net()
        fit(model, toy(), epochs=2, settings=FitSettings(precision=precision, schedule="constant"))
        ends.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert not torch.equal(*ends)
    assert (ends[0] - ends[1]).norm() < 0.05 * ends[0].norm()
