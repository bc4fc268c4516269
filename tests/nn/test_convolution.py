"""Convolutions: lax's values and derivatives of the first and second order, by other means on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import lax

from jaxdl import nn
from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.nn import convolution, winograd

CASES = [  # images, kernel, strides, padding
    ((3, 9, 8, 2), (3, 3, 2, 4), (1, 1), "VALID"),
    ((3, 9, 8, 2), (3, 2, 2, 4), (2, 3), "SAME"),
    ((2, 12, 11, 3), (8, 8, 3, 5), (4, 4), "VALID"),
    ((5, 7, 7, 2), (1, 1, 2, 3), (2, 2), "VALID"),  # a stride longer than the window
    ((2, 6, 6, 2), (2, 2, 2, 3), (1, 2), ((3, 5), (0, 4))),  # more padding than window
    ((2, 9, 13, 1), (5, 5, 1, 6), (1, 1), "SAME"),  # in squares of outputs of 3 x 3, their gradients of 4 x 4
    ((2, 7, 6, 6), (5, 6, 6, 16), (1, 1), "VALID"),  # of 2 x 2
    ((2, 5, 9, 12), (1, 2, 12, 6), (1, 1), ((1, -1), (-1, 1))),  # images moved, as masks move them: lax's own is wrong on a CPU
]


def reference(x, k, strides, padding):
    if not isinstance(padding, str):
        x, padding = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*pads, 0) for pads in padding), (0, 0, 0))), "VALID"
    return lax.conv_general_dilated(x, k, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def draw(x, k, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0))
    return jax.random.normal(keys[0], x, dtype), jax.random.normal(keys[1], k, dtype)


def derivatives(function):
    """Value, both gradients, and both gradients of a function of both gradients."""
    def loss(x, k):
        return jnp.sin(function(x, k).astype(jnp.float32)).sum()

    def penalty(x, k):
        return sum(jnp.cos(g.astype(jnp.float32)).sum() for g in jax.grad(loss, (0, 1))(x, k))

    return lambda x, k: (function(x, k), jax.grad(loss, (0, 1))(x, k), jax.grad(penalty, (0, 1))(x, k))


def check(found, expected, tolerance=1e-4):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(abs(b).max(), 1))


def test_a_convolution_by_hand():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    k = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)
    y, vjp = jax.vjp(nn.conv, x, k)
    np.testing.assert_allclose(y[0, :, :, 0], [[27, 37], [57, 67]])
    dx, dk = vjp(jnp.array([[1.0, 0.0], [0.0, 2.0]]).reshape(1, 2, 2, 1))
    np.testing.assert_allclose(dx[0, :, :, 0], [[1, 2, 0], [3, 4 + 2, 4], [0, 6, 8]])
    np.testing.assert_allclose(dk[:, :, 0, 0], [[0 + 2 * 4, 1 + 2 * 5], [3 + 2 * 7, 4 + 2 * 8]])


@pytest.mark.parametrize(("x", "k", "strides", "padding", "block_bytes"),
                         [(*case, 2**20) for case in CASES] + [(*CASES[0], 2 * 42 * 18 * 4), (*CASES[3], 1)])
def test_values_and_two_orders_of_derivatives_are_laxs(x, k, strides, padding, block_bytes, monkeypatch):
    """Blocks are of all images; of 2, the last one filled up; of 1."""
    monkeypatch.setattr(convolution, "_BLOCK_BYTES", block_bytes)
    args = draw(x, k)
    check(jax.jit(derivatives(lambda x, k: nn.conv(x, k, strides, padding)))(*args),
          jax.jit(derivatives(lambda x, k: reference(x, k, strides, padding)))(*args))


TRANSPOSED = [  # images, kernel, strides, padding
    ((2, 5, 4, 3), (4, 4, 3, 2), (2, 2), "SAME"),
    ((2, 3, 4, 3), (2, 3, 3, 2), (3, 1), "VALID"),  # a stride longer than the window
    ((2, 4, 3, 3), (3, 3, 3, 2), (2, 2), ((4, 3), (1, 2))),  # more padding than the window
]


def transposed_reference(x, k, strides, padding):
    return lax.conv_transpose(x, k, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize(("x", "k", "strides", "padding"), TRANSPOSED)
def test_transposed_convolutions_and_two_orders_of_derivatives_are_laxs(x, k, strides, padding):
    args = draw(x, k)
    check(jax.jit(derivatives(lambda x, k: nn.conv_transpose(x, k, strides, padding)))(*args),
          jax.jit(derivatives(lambda x, k: transposed_reference(x, k, strides, padding)))(*args))


def test_transposed_bfloat16_keeps_its_type_and_its_two_digits():
    x, k, strides, padding = TRANSPOSED[0]
    args = draw(x, k, jnp.bfloat16)
    check(nn.conv_transpose(*args, strides, padding), transposed_reference(*args, strides, padding), 0.03)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 2), (0, 1))])
@pytest.mark.parametrize("window", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("strides", [(1, 2), (3, 4)])
def test_transposed_images_have_laxs_sides(padding, window, strides):
    x, k = jnp.zeros((1, 3, 4, 1)), jnp.zeros((window, window, 1, 1))
    ours, theirs = (jax.eval_shape(lambda x, k, conv=conv: conv(x, k, strides, padding), x, k)
                    for conv in (nn.conv_transpose, transposed_reference))
    assert ours.shape == theirs.shape


def test_a_transposed_population_is_its_members():
    x, k, strides, padding = TRANSPOSED[0]
    x, k = draw((3, *x), (3, *k))
    together = jax.jit(jax.vmap(derivatives(lambda x, k: nn.conv_transpose(x, k, strides, padding))))(x, k)
    single = jax.jit(derivatives(lambda x, k: transposed_reference(x, k, strides, padding)))
    for i in range(3):
        check(jax.tree.map(lambda a, i=i: a[i], together), single(x[i], k[i]))


def test_the_transposed_module_is_flaxs_with_the_same_parameters():
    settings = {"features": 5, "kernel_size": (4, 3), "strides": (2, 1)}
    ours, theirs = nn.ConvTranspose(**settings), linen.ConvTranspose(**settings)
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    variables = theirs.init(jax.random.key(1), x)
    check(ours.init(jax.random.key(1), x), variables)
    variables = jax.tree.map(lambda p: p + 0.1, variables)
    check(ours.apply(variables, x), theirs.apply(variables, x))


def test_bfloat16_keeps_its_type_and_its_two_digits():
    x, k, strides, padding = CASES[0]
    args = draw(x, k, jnp.bfloat16)
    def first(conv):
        return jax.jit(jax.grad(lambda x, k: (conv(x, k, strides, padding).astype(jnp.float32) ** 2).sum(), (0, 1)))(*args)
    check(first(nn.conv), first(reference), 0.03)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_a_population_is_its_members(axes):
    x, k, strides, padding = CASES[1]
    x, k = draw((4, *x) if axes[0] == 0 else x, (4, *k) if axes[1] == 0 else k)
    together = jax.jit(jax.vmap(derivatives(lambda x, k: nn.conv(x, k, strides, padding)), axes))(x, k)
    single = jax.jit(derivatives(lambda x, k: reference(x, k, strides, padding)))
    for i in range(4):
        member = x if axes[0] is None else x[i], k if axes[1] is None else k[i]
        check(jax.tree.map(lambda a, i=i: a[i], together), single(*member))


def test_a_scan_over_convolutions_has_their_gradient():
    x, k = draw((2, 6, 6, 3), (3, 3, 3, 3))
    def loss(conv):
        return lambda x, k: lax.scan(lambda h, _: (jnp.tanh(conv(h, k, (1, 1), "SAME")), None), x, None, 3)[0].sum()
    check(jax.jit(jax.grad(loss(nn.conv), (0, 1)))(x, k), jax.jit(jax.grad(loss(reference), (0, 1)))(x, k))


@pytest.mark.parametrize(("padding", "use_bias"), [("SAME", True), ("VALID", False), (((1, 0), (2, 1)), True)])
def test_the_module_is_flaxs_with_the_same_parameters(padding, use_bias):
    settings = {"features": 5, "kernel_size": (3, 2), "strides": (2, 1), "padding": padding, "use_bias": use_bias}
    ours, theirs = nn.Conv(**settings), linen.Conv(**settings)
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    variables = theirs.init(jax.random.key(1), x)
    check(ours.init(jax.random.key(1), x), variables)
    variables = jax.tree.map(lambda p: p + 0.1, variables)
    check(ours.apply(variables, x), theirs.apply(variables, x))
    rounded = theirs.clone(dtype=jnp.bfloat16).apply(variables, x)
    check(ours.clone(dtype=jnp.bfloat16).apply(variables, x), rounded.astype(jnp.float32), 0.03)  # ours give float32 back


@pytest.mark.parametrize("layer", [nn.Conv, nn.ConvTranspose])
def test_kernels_of_the_modules_are_drawn_by_init(layer):
    variables = nn.init(layer(50, (3, 3), kernel_init=nn.lecun_uniform), jax.random.key(0), jnp.zeros((1, 5, 5, 8)))
    flaxs = layer(50, (3, 3), kernel_init=nn.lecun_uniform).init(jax.random.key(0), jnp.zeros((1, 5, 5, 8)))
    kernel = variables["params"]["kernel"]
    assert not np.allclose(kernel, flaxs["params"]["kernel"])  # the one draw's numbers
    assert 0.95 * np.sqrt(3 / 72) < abs(kernel).max() <= np.sqrt(3 / 72)  # of the fan of a window


def windows(plain):
    """Windows of the convolutions in the compiled gradient of a small strided network."""
    x, k = draw((4, 12, 12, 3), (4, 4, 3, 5))
    def step(i, k):
        return k - jax.grad(lambda k: (nn.conv(x + i, k, (2, 2), plain=plain) ** 2).sum())(k)
    text = jax.jit(lambda k, n: lax.fori_loop(0, n, step, k)).lower(k, 1).compile(TRAIN_OPTIONS).as_text()
    return [line.split("window={")[1].split("}")[0] for line in text.splitlines() if " convolution(" in line]


def test_no_gradient_of_a_kernel_is_a_convolution_in_training_on_a_cpu():
    assert windows(plain=False) == ["size=4x4 stride=2x2"]
    assert len(windows(plain=True)) == 2  # the window of the gradient is the image of the output, [5, 5]


def test_forward_mode_needs_plain_lax():
    x, k = draw((1, 4, 4, 1), (2, 2, 1, 1))
    y, dy = jax.jvp(lambda k: nn.conv(x, k, plain=True), (k,), (k,))
    check(dy, y)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda k: nn.conv(x, k), (k,), (k,))


@pytest.mark.parametrize("conv", [nn.conv, nn.conv_transpose])
def test_accelerators_get_plain_lax(conv, monkeypatch):
    x, k = draw((1, 4, 4, 1), (2, 2, 1, 1))
    on_cpu, plain = jax.make_jaxpr(conv)(x, k), jax.make_jaxpr(lambda x, k: conv(x, k, plain=True))(x, k)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert str(jax.make_jaxpr(lambda x, k: conv(x, k))(x, k)) == str(plain) != str(on_cpu)


def test_a_mask_excludes_or_includes_its_centre():
    single = [np.squeeze(nn.causal_mask((3, 3), kind)).tolist() for kind in "AB"]
    assert single == [[[1, 1, 1], [1, 0, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 0], [0, 0, 0]]]
    colours = [np.array(nn.causal_mask((1, 3), kind, groups=3)) for kind in "AB"]  # [1, 3, in, out]
    assert [c[0, 1].tolist() for c in colours] == [[[0, 1, 1], [0, 0, 1], [0, 0, 0]], [[1, 1, 1], [0, 1, 1], [0, 0, 1]]]
    assert all(c[0, 0].all() and not c[0, 2].any() for c in colours)


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="kind is 'C'"):
        nn.causal_mask((3, 3), "C")
    with pytest.raises(ValueError, match="both are odd"):
        nn.causal_mask((3, 2), "A")
    for window, groups in [((5, 5), 1), ((3, 3), 3)]:
        with pytest.raises(ValueError, match="does not fit a kernel"):
            nn.conv(jnp.zeros((1, 5, 5, 4)), jnp.zeros((3, 3, 4, 6)), mask=nn.causal_mask(window, "A", groups))


@pytest.mark.parametrize("kind", ["A", "B"])
def test_a_masked_network_sees_what_came_before_and_nothing_else(kind):
    """Pixels in the order of rows, and red, green, blue within a pixel; two output channels a colour."""
    module = nn.Conv(6, (3, 3), mask=nn.causal_mask((3, 3), kind, groups=3))
    x = jax.random.normal(jax.random.key(0), (3, 3, 3))
    variables = module.init(jax.random.key(1), x)
    assert variables["params"]["kernel"].shape == (3, 3, 3, 6)
    seen = jax.jacrev(lambda x: module.apply(variables, x)[1, 1])(x).reshape(3, 2, 27) != 0  # of the pixel in the middle
    order = np.arange(27)  # of values before a colour of the pixel
    for colour in range(3):
        assert (seen[colour] == (order < 12 + colour + (kind == "B"))).all()


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_a_masked_convolution_is_that_of_its_masked_kernel(strides, padding):
    mask = nn.causal_mask((3, 5), "B", 2)
    mask = mask if strides == (1, 1) else mask[::-1]  # the last row is cut off, or the first
    args = draw((2, 6, 7, 2), (3, 5, 2, 4))
    ones = np.array(mask).repeat(2, 3)
    check(jax.jit(derivatives(lambda x, k: nn.conv(x, k, strides, padding, mask=mask)))(*args),
          jax.jit(derivatives(lambda x, k: reference(x, k * ones, strides, padding)))(*args))


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_masked_rows_and_columns_are_cut_off_on_a_cpu(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    mask = nn.causal_mask((1, 5), "A")
    text = str(jax.make_jaxpr(lambda x, k: nn.conv(x, k, padding="SAME", mask=mask))(*draw((2, 6, 6, 1), (1, 5, 1, 4))))
    assert ("slice" in text) == (backend == "cpu")


@pytest.mark.parametrize(("images", "window", "pads", "tiles"), [
    ((3, 5, 4), (3, 3), ((1, 1), (1, 1)), 1), ((4, 4, 6), (2, 3), ((1, 0), (2, 2)), 12),
    ((2, 7, 5), (2, 2), ((-1, 2), (0, 1)), 99)])
def test_fewer_products_have_laxs_value_and_gradient(images, window, pads, tiles, monkeypatch):
    """In blocks of one image, of some and of all; sides of the output odd and even."""
    monkeypatch.setattr(winograd, "_TILES", tiles)
    x, k = draw((*images, 3), (*window, 3, 4))
    y, vjp = jax.vjp(lambda k: reference(x, k, (1, 1), pads), k)
    check(jax.jit(lambda x, k: winograd.forward(x, k, pads))(x, k), y)
    check(jax.jit(lambda x, y: winograd.to_kernel(x, y, window, pads))(x, y), vjp(y)[0])


def test_fewer_products_are_used_on_enough_channels_and_have_laxs_derivatives(monkeypatch):
    for name in ("_FORWARD_CHANNELS", "_KERNEL_CHANNELS"):
        monkeypatch.setattr(convolution, name, {(3, 3): 3, (2, 2): 3})
    used = []
    for name in ("forward", "to_kernel"):
        function = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *args, name=name, f=function: used.append(name) or f(*args))
    args = draw((2, 5, 5, 3), (3, 3, 3, 4))
    check(*(jax.jit(derivatives(lambda x, k: conv(x, k, (1, 1), "SAME")))(*args) for conv in (nn.conv, reference)))  # noqa: B023
    assert set(used) == {"forward", "to_kernel"}
    used.clear()
    bfloat16 = draw((2, 5, 5, 3), (3, 3, 3, 4), jnp.bfloat16)
    check(nn.conv(*bfloat16), reference(*bfloat16, (1, 1), "VALID"), 0.03)
    assert not used
