"""The names of the zoo: a fixed list, then more models of the same three libraries."""

from __future__ import annotations

_TORCHVISION = """
alexnet convnext_small densenet121 efficientnet_v2_s googlenet mnasnet1_0 mobilenet_v2 mobilenet_v3_large
mobilenet_v3_small regnet_y_800mf resnet18 resnet50 shufflenet_v2_x0_5 shufflenet_v2_x1_0 squeezenet1_0
squeezenet1_1 swin_t swin_v2_t vgg11 vgg11_bn vgg16_bn vit_b_16 vit_b_32 wide_resnet50_2
deeplabv3_mobilenet_v3_large deeplabv3_resnet50 lraspp_mobilenet_v3_large mvit_v2_s swin3d_t raft_large
fasterrcnn_mobilenet_v3_large_320_fpn fcos_resnet50_fpn keypointrcnn_resnet50_fpn maskrcnn_resnet50_fpn_v2
ssdlite320_mobilenet_v3_large
"""

_TIMM = """
beit_base_patch16_224 caformer_s18 cait_xxs24_224 convit_tiny convnext_atto cpubone_nano cs3darknet_s dla34
dpn68 efficientformerv2_s0 efficientvim_m1 ese_vovnet19b_slim fastvit_t8 gcvit_tiny gemma4_vit_167m
ghostnet_050 gmlp_ti16_224 halonet26t hgnet_tiny hiera_tiny_224 hrnet_w18_ssld inception_v3 legacy_senet154
legacy_xception lowformer_b0 mambaout_femto maxvit_pico_rw_256 mobilevit_xxs mvitv2_tiny
naflexvit_base_patch16_siglip nasnetalarge nextvit_small pit_xs_224 pnasnet5large pvt_v2_b0 rdnet_tiny
regnetx_004_tv repghostnet_050 repvit_m1 resnest14d resnet18 sam2_hiera_tiny samvit_base_patch16 skresnet18
starnet_s1 swin_s3_tiny_224 tnt_s_patch16_224 twins_svt_base vgg11 visformer_tiny
vit_relpos_small_patch16_224 vit_xsmall_patch16_clip_224 vitamin_small_224 volo_d1_224 xcit_nano_12_p8_224
"""

_TRANSFORMERS = """
bert electra mpnet gpt2 gpt_neo gpt_neox bloom llama qwen2 gemma2 phi falcon granite cohere stablelm fnet
squeezebert mobilebert t5 bart mbart marian vit deit beit swin dinov2 convnextv2 resnet mobilenet_v2 regnet
efficientnet cvt wav2vec2 hubert whisper wavlm clip
"""

_MORE_TORCHVISION = ""
_MORE_TIMM = ""
_MORE_TRANSFORMERS = ""


def _names(library: str, text: str) -> list[str]:
    return [f"{library}/{name}" for name in text.split()]


LISTED = [
    *_names("torchvision", _TORCHVISION),
    *_names("timm", _TIMM),
    *_names("transformers", _TRANSFORMERS),
]
ALL = [
    *LISTED,
    *_names("torchvision", _MORE_TORCHVISION),
    *_names("timm", _MORE_TIMM),
    *_names("transformers", _MORE_TRANSFORMERS),
]
