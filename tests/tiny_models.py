"""Models of real architectures with random weights, made in a moment."""


def tiny_model(folder, kind):
    """A sentence-transformers model of a real architecture with random weights, saved as safetensors."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertTokenizerFast, MPNetConfig, MPNetModel, NomicBertConfig, NomicBertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "search", "_", "query", "document", ":", "how", "bread"]
    raw = folder / "raw"
    raw.mkdir(parents=True)
    (raw / "vocab.txt").write_text("\n".join(words))
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    if kind == "nomic":
        model = NomicBertModel(NomicBertConfig(**sizes, intermediate_size=32))
    else:
        model = MPNetModel(MPNetConfig(**sizes, intermediate_size=32))
    model.save_pretrained(raw)
    BertTokenizerFast(vocab=str(raw / "vocab.txt")).save_pretrained(raw)
    transformer = Transformer(str(raw), max_seq_length=32)
    SentenceTransformer(modules=[transformer, Pooling(16)]).save(str(folder / "model"))
    return folder / "model"
