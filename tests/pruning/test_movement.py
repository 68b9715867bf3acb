import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adaptkit.errors import DataError
from adaptkit.loading.batches import Batches
from adaptkit.metrics.task import accuracy
from adaptkit.pruning import MovementPruning
from adaptkit.pruning.masks import marked
from adaptkit.pruning.scored import Scored, ScoredWeight
from adaptkit.technique import Context
from adaptkit.training.checkpoint import state_sha256
from adaptkit.training.settings import FitSettings
from tests.pruning.test_gradual import Killed, watching

PLAIN = FitSettings(schedule="constant", learning_rate=0.1, weight_decay=0.01, momentum=0.0)


def _data():
    x = torch.randn(160, 6, generator=torch.Generator().manual_seed(0))
    return Batches(x, (x[:, 0] > 0).long(), batch_size=16, shuffle=True)


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 2))


def _context(**changes) -> Context:
    return Context(example_inputs=(torch.zeros(1, 6),), train=_data(), **changes)


def test_gradients_are_those_of_the_paper():
    """∂L/∂S = ∂L/∂W' · W everywhere, ∂L/∂W = ∂L/∂W' where the mask is open, with W' = W ⊙ M."""
    weight, scores = torch.randn(3, 4, requires_grad=True), torch.zeros(12, requires_grad=True)
    mask, direction = torch.rand(3, 4) > 0.5, torch.randn(3, 4)
    masked = ScoredWeight.apply(weight, scores, mask)
    assert torch.equal(masked, weight * mask)
    (masked * direction).sum().backward()
    torch.testing.assert_close(scores.grad, (direction * weight).flatten())
    torch.testing.assert_close(weight.grad, direction * mask)


@pytest.mark.parametrize("ranking", ["per_layer", "global"])
def test_training_is_that_of_a_loop_written_by_hand(ranking):
    """Plain gradient descent on weights and scores, masks from the scores after every step."""
    x, y = _data().x, _data().y
    settings = MovementPruning(sparsity=0.5, begin=0.0, end=0.5, epochs=8, ranking=ranking, fit=PLAIN)
    found = settings.apply(_net(), Context(example_inputs=(x[:1],), train=[(x, y)]))
    net = _net()
    layers = [net[0], net[2]]
    scores = [torch.zeros_like(layer.weight) for layer in layers]
    masks = [torch.ones_like(layer.weight) for layer in layers]
    for step in range(1, 9):
        effective = [(layer.weight * mask).detach().requires_grad_() for layer, mask in zip(layers, masks, strict=True)]
        hidden = torch.relu(F.linear(x, effective[0], layers[0].bias))
        loss = F.cross_entropy(F.linear(hidden, effective[1], layers[1].bias), y)
        gradients = torch.autograd.grad(loss, [*effective, layers[0].bias, layers[1].bias])
        with torch.no_grad():
            for i, layer in enumerate(layers):
                scores[i] -= 0.1 * gradients[i] * layer.weight
                layer.weight -= 0.1 * (gradients[i] * masks[i] + 0.01 * layer.weight)
                layer.bias -= 0.1 * gradients[2 + i]
        share = 0.5 if step >= 4 else 0.5 - 0.5 * (1 - step / 4) ** 3
        sizes = [score.numel() for score in scores]
        if ranking == "global":
            flat = torch.cat([score.flatten() for score in scores])
            chosen = torch.zeros_like(flat)
            chosen[flat.argsort(descending=True, stable=True)[: len(flat) - round(share * len(flat))]] = 1
            masks = [part.reshape(s.shape) for part, s in zip(chosen.split(sizes), scores, strict=True)]
        else:
            for i, score in enumerate(scores):
                chosen = torch.zeros(sizes[i])
                kept = sizes[i] - round(share * sizes[i])
                chosen[score.flatten().argsort(descending=True, stable=True)[:kept]] = 1
                masks[i] = chosen.reshape(score.shape)
    for layer, mask, other in zip(layers, masks, (found[0], found[2]), strict=True):
        torch.testing.assert_close(other.weight.detach(), (layer.weight * mask).detach(), rtol=1e-4, atol=1e-6)


def test_small_weights_that_grow_stay_and_large_ones_that_shrink_go():
    torch.manual_seed(0)
    x = torch.randn(512, 4)
    net = nn.Sequential(nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.01, 0.0, 1.0, 1.0], [-0.01, 0.0, -1.0, -1.0]]))
    context = Context(example_inputs=(x[:1],), train=(x, (x[:, 0] > 0).long()))
    MovementPruning(sparsity=0.75, begin=0.3, epochs=10, fit=FitSettings(learning_rate=0.2)).apply(net, context)
    assert (net[0].weight != 0).nonzero().tolist() == [[0, 0], [1, 0]]


def test_what_went_may_come_back():
    scored = Scored(nn.Sequential(nn.Linear(2, 1)), {"0.weight": torch.zeros(1, 2)}, "per_layer")
    with torch.no_grad():
        scored.scores[0].copy_(torch.tensor([1.0, -1.0]))
        scored.renew(0.5)
        assert scored.masks()["0.weight"].tolist() == [[True, False]]
        scored.scores[0].copy_(torch.tensor([1.0, 2.0]))
        scored.renew(0.5)
    assert scored.masks()["0.weight"].tolist() == [[False, True]]


@pytest.mark.parametrize("steps", [3, 15])
def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path, steps):
    settings = MovementPruning(sparsity=0.7, epochs=2.5, fit=FitSettings(ema=0.9, checkpoint_seconds=0))
    whole, resumed, seen = _net(), _net(), []
    settings.apply(whole, _context())
    with pytest.raises(Killed):
        settings.apply(_net(), _context(loss=watching([], steps), workspace=tmp_path))
    settings.apply(resumed, _context(loss=watching(seen), workspace=tmp_path))
    assert len(seen) == 25 - steps
    assert state_sha256(resumed) == state_sha256(whole)


def test_the_model_keeps_its_modules_and_is_sparse_and_right():
    net, before = _net(), [name for name, _ in _net().named_modules()]
    context = _context()
    MovementPruning(sparsity=0.9, epochs=6).apply(net, context)
    assert [name for name, _ in net.named_modules()] == before
    weights = list(marked(net).values())
    assert [int((w == 0).sum()) for w in weights] == [108, 36]
    assert accuracy(net, _data()) > 0.85
    assert any("are zero" in note for note in context.notes)


def test_bad_settings():
    with pytest.raises(ValueError, match=r"begin must be before end"):
        MovementPruning(begin=0.8)
    with pytest.raises(DataError, match=r"prune\.movement needs training data"):
        MovementPruning().apply(_net(), Context(example_inputs=(torch.zeros(1, 6),)))
