import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from adaptkit.errors import DataError
from adaptkit.loading.augment import AUGMENTATIONS, flip, pad_crop, resized_crop
from adaptkit.loading.batches import Batches, LoaderBatches, as_batches, mixed_seed


def numbered_images(count: int, side: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def same(first, second) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


@given(count=st.integers(1, 40), batch_size=st.integers(1, 17), shuffle=st.booleans())
def test_every_sample_comes_once_an_epoch(count, batch_size, shuffle):
    batches = Batches(torch.arange(count)[:, None].float(), torch.arange(count), batch_size=batch_size, shuffle=shuffle)
    sizes = [len(y) for _, y in batches]
    seen = torch.cat([y for _, y in batches])
    assert sorted(seen.tolist()) == list(range(count))
    assert len(sizes) == len(batches)
    assert max(sizes) <= batch_size
    assert all(torch.equal(x[:, 0].long(), y) for x, y in batches)
    if shuffle:
        assert max(sizes) - min(sizes) <= 1
    else:
        assert seen.tolist() == list(range(count))


@given(start=st.integers(0, 4), epoch=st.integers(0, 3))
def test_an_epoch_goes_on_in_the_middle(start, epoch):
    batches = Batches(
        numbered_images(50),
        torch.arange(50),
        batch_size=12,
        shuffle=True,
        augment=("pad_crop", "flip", "resized_crop"),
        seed=3,
    )
    assert same(list(batches.epoch(epoch))[start:], list(batches.epoch(epoch, start)))


def test_order_and_augmentation_change_with_epoch_and_seed():
    make = {"x": numbered_images(64), "y": torch.arange(64), "batch_size": 64, "augment": ("flip",)}
    first = next(Batches(**make, shuffle=True, seed=0).epoch(0))
    next_epoch = next(Batches(**make, shuffle=True, seed=0).epoch(1))
    other_seed = next(Batches(**make, shuffle=True, seed=1).epoch(0))
    assert not torch.equal(first[1], next_epoch[1])
    assert not torch.equal(first[1], other_seed[1])
    unshuffled = Batches(**make, seed=0)
    assert not torch.equal(next(unshuffled.epoch(0))[0], next(unshuffled.epoch(1))[0])


def test_pixels_are_scaled_normalized_and_put_channels_first():
    images = numbered_images(5)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    index = torch.tensor([4, 0, 2])
    x, y = next(iter(Batches(images, torch.arange(5), index, mean=mean, std=std)))
    assert y.tolist() == [4, 0, 2]
    expected = (images[index].numpy().transpose(0, 3, 1, 2) / 255.0 - np.reshape(mean, (3, 1, 1))) / np.reshape(
        std, (3, 1, 1)
    )
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_array_itself_is_never_changed():
    x = torch.randn(6, 3, 8, 8)
    before = x.clone()
    for _ in Batches(x, torch.arange(6), augment=("flip",), mean=(0.5,) * 3, std=(2.0,) * 3):
        pass
    assert torch.equal(x, before)


def test_float_images_are_augmented_as_pixels_are():
    pixels = numbered_images(9)
    floats = pixels.permute(0, 3, 1, 2).float() / 255
    options = {"y": torch.arange(9), "augment": ("pad_crop", "flip"), "seed": 5}
    torch.testing.assert_close(next(iter(Batches(pixels, **options)))[0], next(iter(Batches(floats, **options)))[0])


def test_pad_crop_moves_by_at_most_an_eighth():
    images = numbered_images(200)
    crops = pad_crop(images, np.random.default_rng(0))
    padded = torch.nn.functional.pad(images, (0, 0, 1, 1, 1, 1))
    offsets = set()
    for crop, frame in zip(crops, padded, strict=True):
        found = [(i, j) for i in range(3) for j in range(3) if torch.equal(frame[i : i + 8, j : j + 8], crop)]
        assert found
        offsets |= set(found[:1])
    assert offsets == {(i, j) for i in range(3) for j in range(3)}


def test_flip_mirrors_about_half():
    images = numbered_images(400)
    flipped = flip(images, np.random.default_rng(0))
    mirrored = sum(torch.equal(new, old.flip(1)) for new, old in zip(flipped, images, strict=True))
    kept = sum(torch.equal(new, old) for new, old in zip(flipped, images, strict=True))
    assert mirrored + kept == 400
    assert 150 < mirrored < 250


def test_resized_crop_of_a_ramp_is_a_part_of_the_ramp():
    ramp = torch.linspace(0, 1, 32).expand(100, 1, 32, 32).permute(0, 2, 3, 1)
    crops = resized_crop(ramp, np.random.default_rng(0))
    assert crops.shape == ramp.shape
    row = crops[:, 0, :, 0]
    slopes = (row[:, 20] - row[:, 10]) / 10 * 31
    assert float(row.min()) >= 0
    assert float(row.max()) <= 1
    # The slope is the share of the width that was kept: from sqrt(0.08 * 3/4) = 0.24 to all of it.
    assert 0.2 < float(slopes.min()) < 0.4
    assert 0.85 < float(slopes.max()) <= 1.001
    assert torch.all(row[:, 1:] >= row[:, :-1] - 1e-6)


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_augmentations_keep_type_and_shape(name):
    for images in (numbered_images(3), numbered_images(3).float()):
        changed = AUGMENTATIONS[name](images, np.random.default_rng(0))
        assert (changed.dtype, changed.shape) == (images.dtype, images.shape)


def test_other_batch_size_same_samples():
    batches = Batches(numbered_images(10), torch.arange(10), batch_size=4).with_batch_size(3)
    assert [len(y) for _, y in batches] == [3, 3, 3, 1]


def test_pairs_and_batches_of_ours_are_accepted():
    x, y = torch.zeros(10, 2), torch.arange(10)
    batches = as_batches([x, y], batch_size=4)
    assert [len(part) for _, part in batches] == [4, 4, 2]
    assert as_batches(batches) is batches


def shuffling_loader() -> DataLoader:
    return DataLoader(TensorDataset(torch.arange(20.0)[:, None], torch.arange(20)), batch_size=6, shuffle=True)


def test_a_shuffling_loader_repeats_itself_and_goes_on_in_the_middle():
    batches = as_batches(shuffling_loader(), seed=4)
    state = torch.random.get_rng_state()
    assert same(batches.epoch(1), batches.epoch(1))
    assert same(list(batches.epoch(1))[2:], batches.epoch(1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    orders = [torch.cat([y for _, y in batches.epoch(epoch)]) for epoch in (0, 1)]
    assert not torch.equal(*orders)
    assert (len(batches), batches.num_samples) == (4, 20)


def test_a_loader_without_a_length_is_counted():
    class Endless:
        def __iter__(self):
            return iter([(torch.zeros(3, 1), torch.zeros(3)), (torch.zeros(2, 1), torch.zeros(2))])

    batches = as_batches(Endless())
    assert (len(batches), batches.num_samples) == (2, 5)


@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6), batch_size=st.integers(1, 9))
def test_a_loader_is_cut_anew(sizes, batch_size):
    numbers = torch.arange(sum(sizes))
    source = [(part[:, None].float(), part) for part in numbers.split(sizes)]
    batches = as_batches(source).with_batch_size(batch_size)
    lengths = [len(y) for _, y in batches]
    assert torch.equal(torch.cat([y for _, y in batches]), numbers)
    assert len(lengths) == len(batches)
    assert set(lengths[:-1]) <= {batch_size}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: as_batches(iter([])), "readable more than once"),
        (lambda: as_batches(3), "pair of tensors .* got int"),
        (lambda: list(as_batches([torch.zeros(3)])), "yields Tensor"),
        (lambda: Batches(torch.zeros(3, 1), torch.zeros(2)), "x has 3 samples, y has 2 labels"),
        (lambda: Batches(torch.zeros(0, 1), torch.zeros(0)), "no samples"),
        (lambda: Batches(torch.zeros(3, 1), torch.zeros(3), batch_size=0), "batch_size=0"),
        (lambda: Batches(torch.zeros(3, 4), torch.zeros(3), augment=("flip",)), r"got shape \(3, 4\)"),
    ],
)
def test_wrong_sources(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_mixed_seeds_differ():
    seeds = {mixed_seed(a, b, c) for a in range(5) for b in range(5) for c in range(5)}
    assert len(seeds) == 125
    assert isinstance(as_batches([(torch.zeros(1, 1), torch.zeros(1))]), LoaderBatches)
