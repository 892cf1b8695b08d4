"""Models of transformers with random weights from small configs.

Two layers, width 64, 4 heads, 2 key/value heads where there are such, feed-forward 128, vocabulary
128: set wherever a family's config has a field of that meaning. What a family needs beyond that
stands in ``_FAMILIES``. ``bert`` is the family with its usual head; ``bert:BertModel`` names a class.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

VOCABULARY = 128
LENGTH = 12

_WIDTH = (
    "hidden_size",
    "d_model",
    "n_embd",
    "dim",
    "embed_dim",
    "d_embed",
    "hidden_dim",
    "attention_hidden_size",
)
_LAYERS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "encoder_layers",
    "decoder_layers",
    "num_decoder_layers",
    "num_encoder_layers",
)
_HEADS = (
    "num_attention_heads",
    "n_head",
    "n_heads",
    "num_heads",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "num_encoder_attention_heads",
    "num_decoder_attention_heads",
)
_FEED_FORWARD = (
    "intermediate_size",
    "ffn_dim",
    "d_ff",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "n_inner",
    "d_inner",
    "ffn_hidden_size",
    "encoder_ffn_size",
    "decoder_ffn_size",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
)
_SMALL: dict[str, Any] = {
    **dict.fromkeys(_WIDTH, 64),
    **dict.fromkeys(_LAYERS, 2),
    **dict.fromkeys(_HEADS, 4),
    **dict.fromkeys(_FEED_FORWARD, 128),
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "image_size": 32,
    "patch_size": 8,
    "max_encoder_position_embeddings": 64,
    "max_decoder_position_embeddings": 64,
    "num_mel_bins": 16,
    "projection_dim": 32,
}
_CLASSES = 10
_LARGEST = 60e6

_SPEECH = {
    "conv_dim": (32, 32, 32),
    "conv_kernel": (10, 3, 3),
    "conv_stride": (5, 2, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "hidden_size": 64,
}
_STAGES = {"hidden_sizes": [16, 24, 32, 64], "depths": [1, 2, 1, 1]}
_CLIP_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "projection_dim": 32,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_CLIP_VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 32,
}
_FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "audio-spectrogram-transformer": {
        "patch_size": 4,
        "max_length": 32,
        "frequency_stride": 4,
        "time_stride": 4,
    },
    "bart": {"forced_eos_token_id": None},
    "clip": {"text_config": _CLIP_TEXT, "vision_config": _CLIP_VISION},
    "codegen": {"rotary_dim": 8},
    "convnext": _STAGES | {"image_size": 64},
    "convnextv2": _STAGES | {"image_size": 64},
    "cvt": {"embed_dim": [16, 32, 64], "num_heads": [1, 2, 4], "depth": [1, 2, 3]},
    "deepseek_v3": {
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 16,
        "q_lora_rank": 32,
        "kv_lora_rank": 32,
        "head_dim": 8,
        "num_key_value_heads": 4,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
    },
    "efficientnet": {"image_size": 64, "width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "fnet": {"intermediate_size": 128, "tpu_short_seq_length": LENGTH},
    "gptj": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "led": {"attention_window": [8, 8]},
    "longformer": {"attention_window": [8, 8]},
    "levit": {
        "image_size": 64,
        "patch_size": 16,
        "hidden_sizes": [32, 48, 64],
        "num_attention_heads": [2, 3, 4],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
        "down_ops": [["Subsample", 8, 4, 4, 2, 2], ["Subsample", 8, 6, 4, 2, 2]],
    },
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 2, "state_size": 16},
    "marian": {"decoder_vocab_size": VOCABULARY},
    "mobilebert": {
        "embedding_size": 32,
        "intra_bottleneck_size": 32,
        "true_hidden_size": 32,
        "num_feedforward_networks": 2,
    },
    "mobilenet_v2": {"image_size": 64},
    "mobilevitv2": {"image_size": 256, "patch_size": 2},
    "electra": {"embedding_size": 32},
    "regnet": {
        "embedding_size": 32,
        "hidden_sizes": [16, 24, 32, 64],
        "depths": [1, 2, 1, 1],
        "groups_width": 8,
    },
    "resnet": {
        "embedding_size": 32,
        "hidden_sizes": [32, 48, 64, 96],
        "depths": [1, 2, 1, 1],
        "image_size": 64,
    },
    "speech_to_text": {"input_feat_per_channel": 16, "conv_channels": 32},
    "squeezebert": {"embedding_size": 64},
    "swin": {
        "embed_dim": 16,
        "depths": [2, 2],
        "num_heads": [2, 4],
        "window_size": 4,
        "patch_size": 4,
        "image_size": 32,
    },
    "swinv2": {
        "embed_dim": 16,
        "depths": [2, 2],
        "num_heads": [2, 4],
        "window_size": 4,
        "patch_size": 4,
        "image_size": 32,
    },
    "t5": {"d_kv": 16},
    "timesformer": {"num_frames": 4},
    "videomae": {"num_frames": 4},
    "vivit": {"num_frames": 4, "tubelet_size": [2, 8, 8]},
    "wav2vec2": _SPEECH,
    "hubert": _SPEECH,
    "wavlm": _SPEECH,
    "yolos": {"image_size": [32, 32], "num_detection_tokens": 8},
    "whisper": {"max_source_positions": 16, "max_target_positions": 32},
}

# In this order: a head whose output is logits, else the bare model.
_HEADS_OF_CHOICE = (
    "SEQ_TO_SEQ_CAUSAL_LM",
    "SPEECH_SEQ_2_SEQ",
    "MASKED_LM",
    "CAUSAL_LM",
    "IMAGE_CLASSIFICATION",
    "CTC",
    "SEMANTIC_SEGMENTATION",
    "DEPTH_ESTIMATION",
    "OBJECT_DETECTION",
    "VIDEO_CLASSIFICATION",
    "AUDIO_CLASSIFICATION",
)


def build(name: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """A small model of a family (``bert``) or class (``bert:BertModel``), with its inputs."""
    import transformers

    family, _, kind = name.partition(":")
    config = small_config(family)
    if family == "clip" and not kind:
        kind = "CLIPModel"  # both towers; the head for classification has the vision tower alone
    model_class = getattr(transformers, kind or head_of(family))
    for part in ("text_config", "vision_config"):  # one tower of two
        if isinstance(getattr(config, part, None), model_class.config_class):
            config = getattr(config, part)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in model_class(copy.deepcopy(config)).parameters())
    if size > _LARGEST:
        raise ValueError(
            f"{model_class.__name__} has {size / 1e6:.0f} M parameters: its sizes are not known here"
        )
    model = model_class(config)
    return model, (), inputs_of(model)


def small_config(family: str) -> Any:
    """The config of a family with every known size made small, and token ids inside the vocabulary."""
    from transformers import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[family]
    return config_class(num_labels=_CLASSES, **_small_sizes(config_class) | dict(_FAMILIES.get(family, {})))


def _small_sizes(config_class: Any) -> dict[str, Any]:
    """Small values for the fields that a config class has, and for those of the configs inside it."""
    usual = vars(config_class())
    # A list is a size for each stage: those are in _FAMILIES.
    sizes = {k: v for k, v in _SMALL.items() if k in usual and not isinstance(usual[k], (list, tuple))}
    for name, value in usual.items():
        if name.endswith("token_id") and isinstance(value, int) and value >= VOCABULARY:
            sizes[name] = 1
    for name, part in getattr(config_class, "sub_configs", {}).items():
        if name in usual and hasattr(part, "model_type") and part.model_type:
            sizes[name] = _small_sizes(part) | dict(_FAMILIES.get(part.model_type, {}))
    return sizes


def head_of(family: str) -> str:
    """Name of the class to build for a family."""
    from transformers.models.auto import modeling_auto

    for head in _HEADS_OF_CHOICE:
        table = getattr(modeling_auto, f"MODEL_FOR_{head}_MAPPING_NAMES")
        if family in table:
            found = table[family]
            return found if isinstance(found, str) else found[0]
    return modeling_auto.MODEL_MAPPING_NAMES[family]


def inputs_of(model: Any) -> dict[str, Any]:
    """Inputs by the names that the model's forward asks for."""
    config, main = model.config, model.main_input_name
    frames = [config.num_frames] if hasattr(config, "num_frames") else []
    ids = torch.randint(3, VOCABULARY, (2, LENGTH))
    vision = getattr(config, "vision_config", config)
    side = getattr(vision, "image_size", 32)
    side = side if isinstance(side, int) else side[0]
    inputs: dict[str, Any] = {
        "input_ids": ids,
        "pixel_values": torch.randn(2, *frames, getattr(vision, "num_channels", 3), side, side),
        "input_values": torch.randn(2, 1600),
        "input_features": torch.randn(2, getattr(config, "num_mel_bins", 80), 32),
    }
    if config.model_type == "audio-spectrogram-transformer":
        inputs[main] = torch.randn(2, config.max_length, config.num_mel_bins)
    elif config.model_type == "speech_to_text":  # time before frequency
        inputs[main] = torch.randn(2, 32, config.input_feat_per_channel)
    wanted = {main: inputs[main]}
    if config.model_type in ("jamba", "recurrent_gemma", "rwkv"):
        # Caches that cannot be made from this config alone, or whose widths are those of an output.
        wanted["use_cache"] = False
    if (
        hasattr(config, "text_config")
        and hasattr(config, "vision_config")
        and "Model" in type(model).__name__
    ):
        wanted = {"input_ids": ids, "pixel_values": inputs["pixel_values"]}
    if config.is_encoder_decoder:
        wanted["decoder_input_ids"] = torch.randint(3, VOCABULARY, (2, LENGTH))
    return wanted
