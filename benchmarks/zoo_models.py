"""The names of the zoo: a fixed list, then more models of the same three libraries."""

from __future__ import annotations

_TORCHVISION = """
alexnet convnext_small densenet121 efficientnet_v2_s googlenet mnasnet1_0 mobilenet_v2
mobilenet_v3_large mobilenet_v3_small regnet_y_800mf resnet18 resnet50 shufflenet_v2_x0_5
shufflenet_v2_x1_0 squeezenet1_0 squeezenet1_1 swin_t swin_v2_t vgg11 vgg11_bn vgg16_bn vit_b_16
vit_b_32 wide_resnet50_2 deeplabv3_mobilenet_v3_large deeplabv3_resnet50 lraspp_mobilenet_v3_large
mvit_v2_s swin3d_t raft_large fasterrcnn_mobilenet_v3_large_320_fpn fcos_resnet50_fpn
keypointrcnn_resnet50_fpn maskrcnn_resnet50_fpn_v2 ssdlite320_mobilenet_v3_large
"""

_TIMM = """
beit_base_patch16_224 caformer_s18 cait_xxs24_224 convit_tiny convnext_atto cpubone_nano
cs3darknet_s dla34 dpn68 efficientformerv2_s0 efficientvim_m1 ese_vovnet19b_slim fastvit_t8
gcvit_tiny gemma4_vit_167m ghostnet_050 gmlp_ti16_224 halonet26t hgnet_tiny hiera_tiny_224
hrnet_w18_ssld inception_v3 legacy_senet154 legacy_xception lowformer_b0 mambaout_femto
maxvit_pico_rw_256 mobilevit_xxs mvitv2_tiny naflexvit_base_patch16_siglip nasnetalarge
nextvit_small pit_xs_224 pnasnet5large pvt_v2_b0 rdnet_tiny regnetx_004_tv repghostnet_050 repvit_m1
resnest14d resnet18 sam2_hiera_tiny samvit_base_patch16 skresnet18 starnet_s1 swin_s3_tiny_224
tnt_s_patch16_224 twins_svt_base vgg11 visformer_tiny vit_relpos_small_patch16_224
vit_xsmall_patch16_clip_224 vitamin_small_224 volo_d1_224 xcit_nano_12_p8_224
"""

_TRANSFORMERS = """
bert electra mpnet gpt2 gpt_neo gpt_neox bloom llama qwen2 gemma2 phi falcon granite cohere stablelm
fnet squeezebert mobilebert t5 bart mbart marian vit deit beit swin dinov2 convnextv2 resnet
mobilenet_v2 regnet efficientnet cvt wav2vec2 hubert whisper wavlm clip
"""

_MORE_TORCHVISION = """
convnext_tiny densenet161 densenet201 efficientnet_b0 inception_v3 maxvit_t mnasnet0_5
regnet_x_400mf resnext50_32x4d shufflenet_v2_x1_5 swin_s swin_v2_s vgg13_bn fcn_resnet50 raft_small
r3d_18 mc3_18 r2plus1d_18 s3d mvit_v1_b retinanet_resnet50_fpn retinanet_resnet50_fpn_v2
ssd300_vgg16 fasterrcnn_resnet50_fpn_v2 maskrcnn_resnet50_fpn
"""

_MORE_TIMM = """
bat_resnext26ts botnet26t_256 coat_lite_tiny coat_tiny coatnet_0_rw_224 coatnext_nano_rw_224
convformer_s18 convmixer_768_32 convnextv2_atto crossvit_9_240 csatv2 cspnext_tiny cspresnet50
darknet53 davit_tiny deepseek_vit_412m deit3_small_patch16_224 deit_tiny_distilled_patch16_224
densenetblur121d dla60_res2net dm_nfnet_f0 eca_nfnet_l0 edgenext_xx_small efficientformer_l1
efficientnet_b0 efficientnetv2_s efficientvit_b0 efficientvit_l1 efficientvit_m0
eva02_tiny_patch14_224 fasternet_t0 fbnetc_100 focalnet_tiny_lrf focalnet_tiny_srf gcresnet33ts
ghostnetv2_100 ghostnetv3_050 haloregnetz_b hardcorenas_a hgnetv2_b0 iformer_t inception_next_atto
inception_resnet_v2 inception_v4 lambda_resnet26t lcnetv2_small legacy_seresnet18 levit_128s
levit_conv_128s mixer_b32_224 mixnet_s mobilenetv3_small_050 mobilenetv4_hybrid_medium
mobilenetv5_300m mobilevitv2_050 mobileone_s0 nest_tiny nf_regnet_b0 pit_ti_distilled_224
poolformerv2_s12 qwen3_vit_88m regnety_002 regnetz_b16 repvgg_a0 res2net50_14w_8s res2next50
resmlp_12_224 resnest50d_4s2x40d resnetblur50 resnetv2_18 resnetv2_50d_gn resnext50_32x4d rexnet_100
sebotnet33ts_256 selecsls42 semnasnet_075 seresnext26d_32x4d sequencer2d_s shvit_s1 swiftformer_xs
swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 swinv2_tiny_window8_256 tf_efficientnet_lite0
tf_mixnet_s tiny_vit_5m_224 tinynet_e tresnet_m twins_pcpvt_small vit_base_resnet26d_224
vit_small_patch14_dinov2 vit_so150m_patch16_reg4_gap_256 vit_tiny_r_s16_p8_224 vovnet39a xception41
"""

_MORE_TRANSFORMERS = """
albert roberta distilbert deberta deberta-v2 xlm-roberta camembert opt gptj codegen qwen3 qwen3_moe
mistral mixtral gemma gemma3_text phi3 olmo olmo2 starcoder2 mamba mamba2 falcon_mamba rwkv xglm
biogpt glm glm4 nemotron persimmon mpt ctrl openai-gpt gpt_bigcode jamba recurrent_gemma deepseek_v3
modernbert ernie funnel longformer big_bird nystromformer roformer convbert rembert ibert
megatron-bert layoutlm canine xlnet xlm flaubert led pegasus blenderbot blenderbot-small m2m_100
longt5 umt5 mt5 switch_transformers convnext levit mobilevit mobilevitv2 segformer poolformer pvt
pvt_v2 swinv2 dinov2_with_registers ijepa vit_msn yolos focalnet bit mobilenet_v1 swiftformer glpn
siglip hiera data2vec-vision data2vec-audio data2vec-text unispeech unispeech-sat sew sew-d
speech_to_text audio-spectrogram-transformer wav2vec2-conformer timesformer videomae vivit
bert:BertModel bert:BertForSequenceClassification vit:ViTModel llama:LlamaModel gpt2:GPT2Model
t5:T5EncoderModel clip:CLIPVisionModel clip:CLIPTextModel clip:CLIPForImageClassification
apertus arcee aria_text bert-generation bigbird_pegasus bitnet blip chinese_clip clipseg cohere2
cohere2_moe diffllama dinov3_vit doge dpr ernie4_5 ernie4_5_moe eurobert exaone4 falcon_h1 flava
flex_olmo glm4_moe gpt_neox_japanese gpt_oss granitemoe granitemoeshared groupvit gte helium
hgnet_v2 hunyuan_v1_dense hunyuan_v1_moe imagegpt jetmoe lfm2 markuplm metaclip_2 mimo_v2_flash
minimax minimax_m2 ministral ministral3 modernbert-decoder moonshine mra mvp nanochat nemotron_h
nllb-moe nomic_bert olmo3 olmo_hybrid olmoe owlvit owlv2 pegasus_x phimoe plbart pop2piano
prophetnet qwen2_moe roberta-prelayernorm roc_bert seamless_m4t seed_oss smollm3 speecht5 splinter
t5gemma tapas textnet trocr vaultgemma visual_bert vit_mae vitdet xlm-roberta-xl yoso llama4_text
internlm3 hyperclovax
"""


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
