"""What the tests of training share."""

import shutil

import numpy as np
import pytest

from ingest.pairs import TOPIC_TEXT
from ingest.readers import Located, find_files, read_files
from qaserve.encoders.sentence_transformer import SentenceEncoder
from qaserve.settings import EncoderSettings, ReadSettings
from train.folds import Examples


@pytest.fixture
def encoded(encoder):
    """The pairs of a file with the vectors of the fake encoder."""

    def of(path):
        pairs = [item.pair for item in read_files(find_files([path]), ReadSettings()) if isinstance(item, Located)]
        questions = encoder.encode_questions([pair.question for pair in pairs])
        answers = encoder.encode_answers([pair.answer for pair in pairs])
        topics = encoder.encode_answers([TOPIC_TEXT.of(pair) for pair in pairs])
        return Examples(pairs, *(part.astype(np.float64) for part in (questions, answers, topics)))

    return of


@pytest.fixture
def tiny_encoder(tmp_path):
    """A tiny BERT with its masked-language-model head, that knows the words of `rows_about`'s questions and digits."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    raw, folder = tmp_path / "raw", tmp_path / "tiny"
    raw.mkdir()
    words = ["how", "do", "make", "what", "recipe", "steps", "good", *"0123456789", "thing", "part"]
    (raw / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *(f"##{d}" for d in range(10))])
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
        max_position_embeddings=64,
    )
    BertForMaskedLM(config).save_pretrained(raw)
    BertTokenizerFast(vocab=str(raw / "vocab.txt")).save_pretrained(raw)
    modules = [Transformer(str(raw), max_seq_length=32), Pooling(16), Normalize()]
    SentenceTransformer(modules=modules).save(str(folder))
    for name in ("model.safetensors", "config.json"):  # what SentenceTransformer saves has no head
        shutil.copy(raw / name, folder / name)
    return SentenceEncoder(EncoderSettings(encoder=str(folder)), "unused")
