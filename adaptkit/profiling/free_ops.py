"""Operations of ATen that cost no MAC, besides the elementwise ones and views, which PyTorch marks itself."""

_NAMES = """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async
    _fake_quantize_per_tensor_affine_cachemask_tensor_qparams _local_scalar_dense _log_softmax
    _native_batch_norm_legit_no_training _safe_softmax _softmax _to_copy _unsafe_view adaptive_max_pool2d
    affine_grid_generator all amax amin any arange argmax argmin avg_pool2d avg_pool3d bernoulli cat clone
    constant_pad_nd copy_ cudnn_batch_norm cumsum detach_ embedding empty empty_like empty_strided expand_copy eye
    fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask fill fill_ flip full
    full_like gather grid_sampler_2d hardswish_ im2col index index_put index_put_ index_select linalg_vector_norm
    linspace masked_fill masked_fill_ max max_pool2d_with_indices max_pool3d_with_indices mean min mkldnn_max_pool2d
    native_batch_norm native_dropout native_group_norm native_layer_norm new_empty new_full new_ones new_zeros
    norm one_hot ones ones_like pixel_shuffle pixel_unshuffle prod rand randn reflection_pad2d repeat
    replication_pad2d resize_ roll scalar_tensor scatter select_scatter slice_scatter sort stack sum topk tril
    triu upsample_bicubic2d upsample_bilinear2d upsample_nearest2d var var_mean zero_ zeros zeros_like
"""

FREE_OPS = frozenset(_NAMES.split())
"""They move, reduce, normalize, pool or make values; what is not here, has no formula and is no view, is reported."""
