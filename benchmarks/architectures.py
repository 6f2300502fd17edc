"""How many rounds an architecture of transformers needs until `parametrize` has a plan of it.

    python -m benchmarks.architectures             every architecture, as the table of docs/architectures.md
    python -m benchmarks.architectures llama vit   some of them

A round is one error of which the line to paste is pasted, unread. The model is 64 wide (or that at its first stage),
its base 32, given as a configuration; half of the weights are pruned. Beside the rounds stands what was pasted, and of
the plan: how many tensors of each kind, and how many parameters are left out because they do not train. No model is
trained, nothing is downloaded. About a minute.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

import hpsweep

ROUNDS = 4
"""At most; what then has no plan is listed with its error."""

Sizes = Callable[[int], dict[str, Any]]


def decoder(w: int, **more: Any) -> dict[str, Any]:
    """A decoder with grouped queries; heads of 16."""
    return {**encoder(w), "num_key_value_heads": max(1, w // 32), **more}


def encoder(w: int, **more: Any) -> dict[str, Any]:
    """An encoder, or a decoder without grouped queries."""
    return {
        "vocab_size": 64, "hidden_size": w, "intermediate_size": 2 * w, "num_hidden_layers": 2, "bos_token_id": 1,
        "num_attention_heads": w // 16, "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": 2, **more,
    }  # fmt: skip


def translator(w: int, **more: Any) -> dict[str, Any]:
    """An encoder and a decoder."""
    return {
        "vocab_size": 64, "d_model": w, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": w // 16,
        "decoder_attention_heads": w // 16, "encoder_ffn_dim": 2 * w, "decoder_ffn_dim": 2 * w, "bos_token_id": 1,
        "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 1, **more,
    }  # fmt: skip


def vision(w: int, **more: Any) -> dict[str, Any]:
    """A vision transformer on patches of 8 x 8."""
    return {
        "hidden_size": w, "intermediate_size": 2 * w, "num_hidden_layers": 2, "num_attention_heads": w // 16,
        "image_size": 32, "patch_size": 8, "num_channels": 3, **more,
    }  # fmt: skip


def experts(w: int, **more: Any) -> dict[str, Any]:
    """A decoder with two of four experts."""
    return decoder(w, num_experts_per_tok=2, **more)


def state_space(w: int, **more: Any) -> dict[str, Any]:
    """A model of state spaces."""
    return {"vocab_size": 64, "hidden_size": w, "num_hidden_layers": 2, "state_size": 8, **more}


def t5(w: int, **more: Any) -> dict[str, Any]:
    """T5 and its relatives."""
    return {
        "vocab_size": 64, "d_model": w, "d_kv": 16, "d_ff": 2 * w, "num_layers": 2, "num_heads": w // 16,
        "pad_token_id": 0, "decoder_start_token_id": 0, **more,
    }  # fmt: skip


def speech(w: int, channels: int) -> dict[str, Any]:
    """wav2vec 2.0, with a number of channels before it."""
    return encoder(
        w, conv_dim=(channels, channels), conv_stride=(2, 2), conv_kernel=(3, 3), num_feat_extract_layers=2,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip


ARCHITECTURES: dict[str, tuple[str, Sizes]] = {
    "gpt2": ("GPT2LMHeadModel", lambda w: {
        "n_embd": w, "n_head": w // 16, "n_layer": 2, "vocab_size": 64, "n_positions": 64, "bos_token_id": 0,
        "eos_token_id": 0}),
    "gpt_neo": ("GPTNeoForCausalLM", lambda w: {
        "vocab_size": 64, "hidden_size": w, "num_layers": 2, "num_heads": w // 16, "max_position_embeddings": 64,
        "attention_types": [[["global", "local"], 1]]}),
    "gpt_neox": ("GPTNeoXForCausalLM", encoder),
    "gptj": ("GPTJForCausalLM", lambda w: {
        "vocab_size": 64, "n_embd": w, "n_layer": 2, "n_head": w // 16, "rotary_dim": 8, "n_positions": 64}),
    "opt": ("OPTForCausalLM", lambda w: {
        "vocab_size": 64, "hidden_size": w, "num_hidden_layers": 2, "ffn_dim": 2 * w, "num_attention_heads": w // 16,
        "max_position_embeddings": 64, "word_embed_proj_dim": w}),
    "bloom": ("BloomForCausalLM", lambda w: {"vocab_size": 64, "hidden_size": w, "n_layer": 2, "n_head": w // 16}),
    "mpt": ("MptForCausalLM", lambda w: {
        "vocab_size": 64, "d_model": w, "n_layers": 2, "n_heads": w // 16, "max_seq_len": 64}),
    "falcon": ("FalconForCausalLM", lambda w: {
        "vocab_size": 64, "hidden_size": w, "num_hidden_layers": 2, "num_attention_heads": w // 16}),
    "llama": ("LlamaForCausalLM", decoder),
    "llama, one key head": ("LlamaForCausalLM", lambda w: decoder(w, num_key_value_heads=1)),
    "mistral": ("MistralForCausalLM", decoder),
    "qwen2": ("Qwen2ForCausalLM", decoder),
    "qwen3": ("Qwen3ForCausalLM", lambda w: decoder(w, head_dim=16)),
    "granite": ("GraniteForCausalLM", decoder),
    "gemma": ("GemmaForCausalLM", lambda w: decoder(w, head_dim=16)),
    "gemma2": ("Gemma2ForCausalLM", lambda w: decoder(w, head_dim=16)),
    "gemma3_text": ("Gemma3ForCausalLM", lambda w: decoder(w, head_dim=16)),
    "phi": ("PhiForCausalLM", decoder),
    "phi3": ("Phi3ForCausalLM", decoder),
    "cohere": ("CohereForCausalLM", decoder),
    "stablelm": ("StableLmForCausalLM", decoder),
    "starcoder2": ("Starcoder2ForCausalLM", decoder),
    "olmo2": ("Olmo2ForCausalLM", decoder),
    "smollm3": ("SmolLM3ForCausalLM", decoder),
    "nemotron": ("NemotronForCausalLM", decoder),
    "mixtral": ("MixtralForCausalLM", lambda w: experts(w, num_local_experts=4)),
    "qwen2_moe": ("Qwen2MoeForCausalLM", lambda w: experts(
        w, moe_intermediate_size=w, shared_expert_intermediate_size=w, num_experts=4)),
    "qwen3_moe": ("Qwen3MoeForCausalLM", lambda w: experts(w, moe_intermediate_size=w, num_experts=4, head_dim=16)),
    "qwen3_next": ("Qwen3NextForCausalLM", lambda w: experts(
        w, head_dim=16, moe_intermediate_size=w, shared_expert_intermediate_size=w, num_experts=4,
        linear_num_value_heads=w // 16, linear_num_key_heads=w // 32, linear_key_head_dim=16, linear_value_head_dim=16,
        layer_types=["linear_attention", "full_attention"])),
    "olmoe": ("OlmoeForCausalLM", lambda w: experts(w, num_experts=4)),
    "deepseek_v3": ("DeepseekV3ForCausalLM", lambda w: experts(
        w, moe_intermediate_size=w, n_routed_experts=4, q_lora_rank=None, kv_lora_rank=16, qk_rope_head_dim=8,
        qk_nope_head_dim=8, v_head_dim=16, n_group=1, topk_group=1, first_k_dense_replace=1,
        num_key_value_heads=w // 16)),
    "gpt_oss": ("GptOssForCausalLM", lambda w: experts(w, head_dim=16, num_local_experts=4)),
    "granitemoe": ("GraniteMoeForCausalLM", lambda w: experts(w, num_local_experts=4)),
    "dbrx": ("DbrxForCausalLM", lambda w: {
        "d_model": w, "n_heads": w // 16, "n_layers": 2, "max_seq_len": 64, "vocab_size": 64,
        "attn_config": {"kv_n_heads": w // 32, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 2 * w, "moe_num_experts": 4, "moe_top_k": 2}}),
    "jetmoe": ("JetMoeForCausalLM", lambda w: {
        "vocab_size": 64, "hidden_size": w, "num_hidden_layers": 2, "num_key_value_heads": w // 16, "kv_channels": 16,
        "intermediate_size": 2 * w, "max_position_embeddings": 64, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "switch_transformers": ("SwitchTransformersForConditionalGeneration", lambda w: t5(
        w, num_sparse_encoder_layers=1, num_decoder_layers=2, num_sparse_decoder_layers=1, num_experts=4)),
    "mamba": ("MambaForCausalLM", state_space),
    "mamba2": ("Mamba2ForCausalLM", lambda w: state_space(w, head_dim=16, num_heads=w // 8, n_groups=1)),
    "falcon_mamba": ("FalconMambaForCausalLM", state_space),
    "bamba": ("BambaForCausalLM", lambda w: decoder(
        w, mamba_n_heads=w // 8, mamba_d_head=16, mamba_d_state=16, mamba_n_groups=1, attn_layer_indices=[1])),
    "jamba": ("JambaForCausalLM", lambda w: experts(
        w, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, num_experts=4,
        mamba_d_state=8, use_mamba_kernels=False, mamba_dt_rank=w // 16)),
    "recurrent_gemma": ("RecurrentGemmaForCausalLM", lambda w: decoder(
        w, lru_width=w, head_dim=16, attention_window_size=32)),
    "rwkv": ("RwkvForCausalLM", lambda w: {
        "vocab_size": 64, "hidden_size": w, "num_hidden_layers": 2, "context_length": 64}),
    "xlstm": ("xLSTMForCausalLM", lambda w: {
        "vocab_size": 64, "hidden_size": w, "num_hidden_layers": 2, "num_heads": w // 16}),
    "bert": ("BertForMaskedLM", encoder),
    "bert, classes": ("BertForSequenceClassification", encoder),
    "roberta": ("RobertaForMaskedLM", encoder),
    "albert": ("AlbertForMaskedLM", lambda w: encoder(w, embedding_size=16)),
    "electra": ("ElectraForMaskedLM", lambda w: encoder(w, embedding_size=w)),
    "deberta_v2": ("DebertaV2ForMaskedLM", lambda w: encoder(
        w, relative_attention=True, pos_att_type=["p2c", "c2p"])),
    "distilbert": ("DistilBertForMaskedLM", lambda w: {
        "vocab_size": 64, "dim": w, "n_layers": 2, "n_heads": w // 16, "hidden_dim": 2 * w,
        "max_position_embeddings": 64}),
    "modernbert": ("ModernBertForMaskedLM", encoder),
    "longformer": ("LongformerForMaskedLM", lambda w: encoder(w, attention_window=8)),
    "perceiver": ("PerceiverForMaskedLM", lambda w: {
        "vocab_size": 64, "d_model": w, "d_latents": w, "num_latents": 8, "num_blocks": 1, "qk_channels": w,
        "num_self_attends_per_block": 1, "num_self_attention_heads": 2, "num_cross_attention_heads": 2,
        "v_channels": w, "max_position_embeddings": 64}),
    "t5": ("T5ForConditionalGeneration", t5),
    "bart": ("BartForConditionalGeneration", translator),
    "marian": ("MarianMTModel", translator),
    "pegasus": ("PegasusForConditionalGeneration", translator),
    "whisper": ("WhisperForConditionalGeneration", lambda w: translator(
        w, num_mel_bins=8, max_source_positions=12, max_target_positions=16)),
    "speech_to_text": ("Speech2TextForConditionalGeneration", lambda w: translator(
        w, conv_channels=2 * w, input_feat_per_channel=8, max_source_positions=12, max_target_positions=16)),
    "wav2vec2": ("Wav2Vec2ForCTC", lambda w: speech(w, w)),
    "wav2vec2, 16 channels": ("Wav2Vec2ForCTC", lambda w: speech(w, 16)),
    "audio_spectrogram_transformer": ("ASTForAudioClassification", lambda w: {
        "hidden_size": w, "intermediate_size": 2 * w, "num_hidden_layers": 2, "num_attention_heads": w // 16,
        "max_length": 32, "num_mel_bins": 16}),
    "vit": ("ViTForImageClassification", vision),
    "deit": ("DeiTForImageClassification", vision),
    "beit": ("BeitForImageClassification", lambda w: vision(w, use_relative_position_bias=True)),
    "dinov2": ("Dinov2ForImageClassification", vision),
    "vit_mae": ("ViTMAEForPreTraining", lambda w: vision(
        w, decoder_hidden_size=w, decoder_num_hidden_layers=1, decoder_num_attention_heads=w // 16,
        decoder_intermediate_size=2 * w)),
    "swin": ("SwinForImageClassification", lambda w: {
        "image_size": 32, "patch_size": 4, "embed_dim": w, "depths": [1, 1], "num_heads": [w // 16, w // 8],
        "window_size": 4}),
    "convnext": ("ConvNextForImageClassification", lambda w: {
        "hidden_sizes": [w, 2 * w], "depths": [1, 1], "num_stages": 2, "image_size": 32}),
    "resnet": ("ResNetForImageClassification", lambda w: {
        "embedding_size": w, "hidden_sizes": [w, 2 * w], "depths": [1, 1], "layer_type": "basic"}),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", lambda w: {"depth_multiplier": w / 64, "image_size": 32}),
    "segformer": ("SegformerForImageClassification", lambda w: {
        "num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [w, 2 * w],
        "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [w // 16, w // 8], "mlp_ratios": [2, 2],
        "decoder_hidden_size": w}),
    "clip": ("CLIPModel", lambda w: {
        "text_config": encoder(w, projection_dim=w), "vision_config": vision(w, projection_dim=w),
        "projection_dim": w}),
    "siglip": ("SiglipModel", lambda w: {
        "text_config": encoder(w, projection_size=w), "vision_config": vision(w)}),
    "blip": ("BlipForConditionalGeneration", lambda w: {
        "text_config": encoder(w, encoder_hidden_size=w, projection_dim=w), "vision_config": vision(w),
        "projection_dim": w}),
    "git": ("GitForCausalLM", lambda w: encoder(w, vision_config=vision(w))),
    "decision_transformer": ("DecisionTransformerModel", lambda w: {
        "state_dim": 5, "act_dim": 3, "hidden_size": w, "n_layer": 2, "n_head": w // 16, "max_ep_len": 32,
        "n_positions": 64, "vocab_size": 1}),
    "time_series_transformer": ("TimeSeriesTransformerForPrediction", lambda w: {
        "prediction_length": 4, "context_length": 8, "d_model": w, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": w // 16, "decoder_attention_heads": w // 16, "encoder_ffn_dim": 2 * w,
        "decoder_ffn_dim": 2 * w, "lags_sequence": [1, 2]}),
    "patchtst": ("PatchTSTForPrediction", lambda w: {
        "num_input_channels": 2, "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": w,
        "num_attention_heads": w // 16, "num_hidden_layers": 2, "ffn_dim": 2 * w, "prediction_length": 4}),
}  # fmt: skip
"""Name -> its class in transformers, and the settings of its configuration at a width."""


class Tried(NamedTuple):
    """What came of one architecture: the rounds it took, what was pasted, its plan, and the last error without one."""

    rounds: int
    pasted: dict[str, Any]
    plan: hpsweep.Plan | None
    model: nn.Module
    error: str


def configuration(name: str, width: int) -> Any:
    """The architecture's configuration at a width."""
    import transformers

    of_class, sizes = ARCHITECTURES[name]
    return getattr(transformers, of_class).config_class(**sizes(width))


def model_of(name: str, width: int = 64) -> nn.Module:
    """The architecture with random weights."""
    import transformers

    model = getattr(transformers, ARCHITECTURES[name][0])(configuration(name, width))
    assert isinstance(model, nn.Module)
    return model


def tried(name: str, *, density: float = 0.5) -> Tried:
    """`parametrize`, and again with what every error says to paste."""
    torch.manual_seed(0)
    model, base, options = model_of(name), configuration(name, 32), dict[str, Any]()
    error = ""
    for rounds in range(ROUNDS + 1):
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*nonzeros per neuron")
                plan = hpsweep.parametrize(model, "supar", base=base, density=density, **settled(options))
            return Tried(rounds, options, plan, model, "")
        except ValueError as raised:
            error = str(raised)
            options = pasted(error, options, model)
    return Tried(ROUNDS, options, None, model, error)


def settled(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are parametrize's."""
    return {word: value for word, value in options.items() if word != "run"}


def pasted(error: str, options: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """The options with what an error says to paste, mappings joined; code that it says to run is run on the model."""
    lines = error.splitlines()
    result = dict(options)
    for line in lines:
        if line.startswith(("  torch.nn.utils.", "  for name in ")):
            exec(line.strip(), {"torch": torch, "model": model})
            result["run"] = True
    if lines[-1].startswith("Add to the call"):
        for word, value in eval(f"dict({lines[-1].split(': ', 1)[1]})").items():
            result[word] = {**result.get(word, {}), **value} if isinstance(value, dict) else value
    return result


def row(name: str, result: Tried) -> str:
    """A line of the table."""
    if result.plan is None:
        return f"| {name} | none | {result.error.splitlines()[0]} | | |"
    told = ", ".join(f"{word}={value}" for word, value in settled(result.pasted).items())
    told += "; the calls that leave plain weights" if "run" in result.pasted else ""
    kinds = Counter(tensor.kind for tensor in result.plan.tensors.values())
    frozen = sum(not parameter.requires_grad for parameter in result.model.parameters())
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"| {name} | {result.rounds} | {f'`{told}`' if told else ''} | {counted} | {frozen or ''} |"


def table(names: Iterable[str]) -> Iterable[str]:
    """The lines of the table, as they come."""
    yield "| architecture | rounds | pasted | tensors | frozen |"
    yield "|---|---|---|---|---|"
    rounds: Counter[str] = Counter()
    for name in names:
        result = tried(name)
        rounds["none" if result.plan is None else str(result.rounds)] += 1
        yield row(name, result)
    yield ""
    yield "Architectures by rounds: " + ", ".join(f"{count} with {r}" for r, count in sorted(rounds.items())) + "."


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of an architecture; default: all")
    names = parser.parse_args().names or list(ARCHITECTURES)
    if unknown := [name for name in names if name not in ARCHITECTURES]:
        parser.error(f"{unknown[0]!r} is not among {', '.join(ARCHITECTURES)}")
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    for line in table(names):
        print(line, flush=True)


if __name__ == "__main__":
    main()
