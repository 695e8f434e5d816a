"""Documentation of a configuration's fields, from `jmer.config` and the docstrings of a model's classes."""

from jmer.config import FIELDS
from jmer.docstrings import attribute_docs
from jmer.models.registry import get_spec

# Fields of the sections `model` and `loss` that `ModelSpec.sections` adds, or gives a meaning of their own.
_OF_EVERY_MODEL = {
    "model.name": "the model; comes with the experiment",
    "model.num_classes": "number of emotions; 0 = those of the corpus",
    "model.modalities": "modalities that the model uses, among text, audio and visual; () = all that the corpus has",
    "model.dtype": "what the network computes in: float32, or bfloat16 (parameters, sums over rows, normalisations, "
    "softmaxes, recurrences and losses stay float32)",
    "loss.class_weights": "weights of emotions in the cross-entropy: none, inverse_freq (the reciprocals of their "
    "shares of the labelled training utterances) or log_inverse_freq (the logarithms of these)",
    "loss.class_weight_values": "the weights that class_weights gives; come from the corpus",
}


def field_docs(model: str) -> dict[str, str]:
    """Returns `section.field` -> documentation of the fields of a model's configuration, one line each.

    A field that the model's class does not document is left out.

    Raises:
      UserError: for an unknown model.
    """
    spec = get_spec(model)
    of_model = {f"model.{name}": doc for name, doc in attribute_docs(spec.module).items()}
    of_loss = {f"loss.{name}": doc for name, doc in attribute_docs(spec.loss).items()}
    return of_model | of_loss | {name: field.doc for name, field in FIELDS.items()} | _OF_EVERY_MODEL
