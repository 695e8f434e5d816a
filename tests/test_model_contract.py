"""A model that breaks its contract is refused in one line that names what is wrong, when registered or when built."""

import dataclasses
import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest
from flax import linen as nn
from tiny import EMOTIONS, LINEAR, WIDTHS, Linear, Output, mean_square

from jmer.config import base_config, with_variants
from jmer.errors import UserError
from jmer.experiment import get_config
from jmer.models import Model, Summaries, check_model, get_spec, model_names, register_model
from jmer.models.contract import example_batch
from jmer.models.registry import BUILT_IN

C = len(EMOTIONS)


def spec(**changes):
    """The smallest model's declaration under another name, with changes."""
    return dataclasses.replace(LINEAR, **{"name": "mine", **changes})


def check(module, loss=mean_square, **changes):
    """Checks the smallest model with another module or loss, as it is checked before training."""
    declared = spec(module=type(module), loss=loss, **changes)
    check_model(Model(declared, module, loss), tuple(WIDTHS.items()), False)


# What is declared.


class NoClasses(nn.Module):
    def __call__(self, batch, *, train=False):
        return Output(batch.features["text"])


class NoTrain(nn.Module):
    num_classes: int

    def __call__(self, batch):
        return Output(batch.features["text"])


class NoBatch(nn.Module):
    num_classes: int

    def __call__(self, x, *, train=False):
        return Output(x)


class NoDefault(Linear):
    width: int = dataclasses.field(kw_only=True)


class WrongDefault(Linear):
    dtype: Any = None


@dataclasses.dataclass(frozen=True)
class WeightedLoss:
    """The mean square of the logits, with a weight and an option."""

    gamma: float = 1.0
    power: int = 2

    def __call__(self, output, batch):
        _, total, count = mean_square(output, batch)["squares"]
        return {"squares": (self.gamma, total, count)}


@dataclasses.dataclass(frozen=True)
class InheritedLoss(WeightedLoss):
    tau: float = 1.0


@dataclasses.dataclass(frozen=True)
class UnsetLoss(WeightedLoss):
    tau: float = dataclasses.field(kw_only=True)


class PlainLoss:
    def __call__(self, output, batch):
        return mean_square(output, batch)


@dataclasses.dataclass(frozen=True)
class SilentLoss:
    gamma: float = 1.0


MODEL_FIELDS, LOSS_FIELDS = "name, modalities, dropout_rate, num_classes", "gamma, power"
NO_FLOAT = "which is no float field of the loss:"
UNDECLARED = {
    "no declaration": (Linear, "register_model takes a jmer.ModelSpec, not type"),
    "a name with a space": (
        spec(name="my model"),
        "a model's name must be letters, digits, '_' and '-', not 'my model'",
    ),
    "an empty name": (spec(name=""), "a model's name must be letters, digits, '_' and '-', not ''"),
    "a module of another kind": (
        spec(module=WeightedLoss),
        "model 'mine': module must be a subclass of flax.linen.Module, not WeightedLoss",
    ),
    "an instance of a module": (
        spec(module=Linear()),
        "model 'mine': module must be a subclass of flax.linen.Module, not an instance of Linear",
    ),
    "no num_classes": (
        spec(module=NoClasses),
        "model 'mine': NoClasses has no field num_classes, the number of logits: add it",
    ),
    "no argument train": (
        spec(module=NoTrain),
        "model 'mine': NoTrain.__call__ has no argument 'train': (self, batch, *, train)",
    ),
    "no argument batch": (
        spec(module=NoBatch),
        "model 'mine': NoBatch.__call__ has no argument 'batch': (self, batch, *, train)",
    ),
    "no loss": (spec(loss=None), "model 'mine': loss must be a dataclass with __call__, or a function, not None"),
    "a loss that is no dataclass": (
        spec(loss=PlainLoss),
        "model 'mine': PlainLoss must be a dataclass whose instances can be called",
    ),
    "a loss that is not called": (
        spec(loss=SilentLoss),
        "model 'mine': SilentLoss must be a dataclass whose instances can be called",
    ),
    "no default of the module": (
        spec(module=NoDefault),
        "model 'mine': field width of NoDefault has no default, which model.width needs",
    ),
    "no default of the loss": (
        spec(loss=UnsetLoss),
        "model 'mine': field tau of UnsetLoss has no default, which loss.tau needs",
    ),
    "a default of another type": (
        spec(module=WrongDefault),
        "model 'mine': the default of WrongDefault.dtype must be one of bool, int, float, str, tuple, not None",
    ),
    "a weight that is no field": (
        spec(loss=WeightedLoss, loss_weights=("gamma", "beta")),
        f"model 'mine': loss_weights has 'beta', {NO_FLOAT} ['gamma']",
    ),
    "a weight that is a whole number": (
        spec(loss=WeightedLoss, loss_weights=("power",)),
        f"model 'mine': loss_weights has 'power', {NO_FLOAT} ['gamma']",
    ),
    "a weight of a function": (
        spec(loss_weights=("gamma",)),
        f"model 'mine': loss_weights has 'gamma', {NO_FLOAT} []",
    ),
    "a variant of no field of the model": (
        spec(variants={"small": {"model.width": 3}}),
        f"model 'mine': variant 'small' names model.width, but the section has only {MODEL_FIELDS}",
    ),
    "a variant of no field of the loss": (
        spec(loss=WeightedLoss, variants={"flat": {"loss.beta": 0.5}}),
        f"model 'mine': variant 'flat' names loss.beta, but the section has only {LOSS_FIELDS}, class_weights",
    ),
    "a variant that is no mapping": (
        spec(variants={"small": ("model.dropout_rate", 0.5)}),
        "model 'mine': variant 'small' must map 'section.field' to a value, not ('model.dropout_rate', 0.5)",
    ),
    "zero for no field": (
        spec(may_be_zero=("rate",)),
        f"model 'mine': may_be_zero names model.rate, but the section has only {MODEL_FIELDS}",
    ),
    "a default of no field": (
        spec(defaults={"model.rate": 0.5}),
        f"model 'mine': defaults names model.rate, but the section has only {MODEL_FIELDS}",
    ),
    "frames by no field": (
        spec(frames_when={"mode": "frame"}),
        f"model 'mine': frames_when names model.mode, but the section has only {MODEL_FIELDS}",
    ),
    "summaries of another kind": (
        spec(summaries={}),
        "model 'mine': summaries must be jmer.models.Summaries, not dict",
    ),
    "one name of a stream": (
        spec(rng_streams="dropout"),
        "model 'mine': rng_streams must be a tuple of names, not 'dropout'",
    ),
    "streams without names": (
        spec(rng_streams=(0, 1)),
        "model 'mine': rng_streams must be a tuple of names, not (0, 1)",
    ),
}


@pytest.mark.parametrize("mistake", UNDECLARED)
def test_a_broken_declaration_is_refused_when_registered(mistake):
    declared, message = UNDECLARED[mistake]
    known = model_names()
    with pytest.raises(UserError, match=f"^{re.escape(message)}") as refusal:
        register_model(declared)
    assert "\n" not in str(refusal.value)
    assert model_names() == known


def test_a_variant_of_another_section_is_checked_when_it_is_applied():
    register_model(spec(name="other_sections", variants={"fast": {"optimiser.rate": 1.0}}))
    with pytest.raises(UserError, match=r"^variant 'fast' of model 'other_sections' cannot be applied: "):
        with_variants(base_config("other_sections"), "fast")


def test_the_sections_are_the_fields_of_module_and_loss():
    register_model(spec(name="sections", loss=InheritedLoss, loss_weights=("gamma", "tau")))
    config = base_config("sections")
    assert config.model.to_dict() == {"name": "sections", "modalities": (), "dropout_rate": 0.2, "num_classes": 0}
    fields = {"gamma": 1.0, "power": 2, "tau": 1.0}
    assert config.loss.to_dict() == fields | {"class_weights": "none", "class_weight_values": ()}


# Names.

FILE = """
import dataclasses

from flax import linen as nn
from tiny import LINEAR, Output

from jmer.config import base_config
from jmer.models import register_model


class Own(nn.Module):
    num_classes: int
    width: int = {width}

    @nn.compact
    def __call__(self, batch, *, train):
        return Output(nn.Dense(self.num_classes)(batch.features["text"]))


register_model(dataclasses.replace(LINEAR, name="own", module=Own, defaults={{}}))


def get_config():
    return base_config("own")
"""


def test_a_file_that_is_executed_again_replaces_its_model_and_no_other_file_does(tmp_path):
    mine, other = tmp_path / "mine.py", tmp_path / "other.py"
    for width in (3, 5):
        mine.write_text(FILE.format(width=width))
        assert get_config(mine).model.width == width
    other.write_text(FILE.format(width=7))
    message = f"model 'own' is registered already, by {mine}: choose another name"
    with pytest.raises(UserError, match=f"^{re.escape(str(other))}: {re.escape(message)}$"):
        get_config(other)
    assert base_config("own").model.width == 5


def test_a_cell_of_a_notebook_may_be_executed_again():
    """Its module is `__main__`, which has no file."""
    cells = "\n".join(f"exec({FILE.format(width=width)!r})" for width in (3, 4))
    options = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "check": False}
    ended = subprocess.run([sys.executable, "-c", f"{cells}\nprint(get_config().model.width)"], **options)
    assert (ended.returncode, ended.stdout) == (0, "4\n"), ended.stderr


def test_the_name_of_a_model_of_jmer_is_taken():
    file = Path("jmer", "models", "lfvd.py")
    with pytest.raises(UserError, match=rf"^model 'lfvd' is registered already, by \S*{file}: choose another name$"):
        register_model(spec(name="lfvd"))
    assert register_model(get_spec("lfvd")) is get_spec("lfvd")


# What is built.


class Altered(Linear):
    """The smallest module, whose output is changed by the function of its class."""

    @staticmethod
    def change(logits):
        return Output(logits)

    @nn.compact
    def __call__(self, batch, *, train):
        return self.change(nn.Dense(self.num_classes)(batch.features["text"]))


class Refused(Altered):
    def __call__(self, batch, *, train):
        raise ValueError("num_classes must be prime")


class NoParameters(Linear):
    def __call__(self, batch, *, train):
        return Output(batch.features["text"][..., : self.num_classes])


class NoAxis(Linear):
    @nn.compact
    def __call__(self, batch, *, train):
        x = nn.BatchNorm(use_running_average=not train)(batch.features["text"])
        return Output(nn.Dense(self.num_classes)(x))


class Latent(Linear):
    draws_in_evaluation: bool = False

    @nn.compact
    def __call__(self, batch, *, train):
        x = nn.Dense(self.num_classes)(batch.features["text"])
        if train or self.draws_in_evaluation:
            x += jax.random.normal(self.make_rng("latent"), x.shape)
        return Output(x)


class Bare(Altered):
    change = staticmethod(lambda logits: logits)


class Wide(Altered):
    change = staticmethod(lambda logits: Output(logits.repeat(2, -1)))


class Pooled(Altered):
    change = staticmethod(lambda logits: Output(logits.mean(1)))


class Unset(Altered):
    change = staticmethod(lambda logits: Output({"logits": logits}))


def terms(value):
    """A loss that returns `value(sum, count)`."""

    def broken_loss(output, batch):
        _, total, count = mean_square(output, batch)["squares"]
        return value(total, count)

    return broken_loss


def summarized(**functions):
    return {"summaries": Summaries(**functions)}


BUILT = {
    "a value that the module refuses": (
        functools.partial(check, Refused(C)),
        "invalid configuration: num_classes must be prime",
    ),
    "no parameters": (
        functools.partial(check, NoParameters()),
        "model 'mine': NoParameters has no parameters to train",
    ),
    "batch statistics without the axis": (
        functools.partial(check, NoAxis()),
        "model 'mine': NoAxis.__call__ keeps batch_stats, but has no argument 'axis_name', the mapped axis to compute "
        "them over",
    ),
    "an undeclared stream": (
        functools.partial(check, Latent()),
        "model 'mine': it draws from a random stream beside rng_streams (dropout): needs PRNG for \"latent\"",
    ),
    "no declared stream": (
        functools.partial(check, Latent(), rng_streams=()),
        "model 'mine': it draws from a random stream beside rng_streams (none): needs PRNG for \"latent\"",
    ),
    "draws in evaluation": (
        functools.partial(check, Latent(draws_in_evaluation=True), rng_streams=("latent",)),
        "model 'mine': Latent.__call__ draws random numbers where train is False: needs PRNG for \"latent\"",
    ),
    "no logits": (
        functools.partial(check, Bare()),
        "model 'mine': Bare.__call__ must return an output with the attribute 'logits', not ",
    ),
    "logits of another width": (
        functools.partial(check, Wide()),
        "model 'mine': logits must have the shape [B, T, C] (1, 1, 4), not (1, 1, 8)",
    ),
    "logits of conversations": (
        functools.partial(check, Pooled()),
        "model 'mine': logits must have the shape [B, T, C] (1, 1, 4), not (1, 4)",
    ),
    "logits that are no array": (
        functools.partial(check, Unset()),
        "model 'mine': logits must have the shape [B, T, C] (1, 1, 4), not {",
    ),
    "one number for a loss": (
        functools.partial(check, Linear(), terms(lambda total, count: total / count)),
        "model 'mine': broken_loss must return {term: (weight, sum, count)}, not ",
    ),
    "a loss without terms": (
        functools.partial(check, Linear(), terms(lambda total, count: {})),
        "model 'mine': broken_loss must return {term: (weight, sum, count)}, not {}",
    ),
    "a loss without counts": (
        functools.partial(check, Linear(), terms(lambda total, count: {"task": total / count})),
        "model 'mine': term 'task' of broken_loss must be (weight, sum, count); it lacks its count or weight",
    ),
    "a term without its weight": (
        functools.partial(check, Linear(), terms(lambda total, count: {"task": (total, count)})),
        "model 'mine': term 'task' of broken_loss must be (weight, sum, count); it lacks its count or weight",
    ),
    "a term that is no scalar": (
        functools.partial(check, Linear(), terms(lambda total, count: {"task": (1.0, total, count[None])})),
        "model 'mine': term 'task' of broken_loss must be three scalars, but their shapes are (), (), (1,)",
    ),
    "fusion weights of features": (
        functools.partial(
            check, Linear(), **summarized(fusion_weights=lambda output, batch: {"text": batch.features["text"]})
        ),
        "model 'mine': summaries.fusion_weights must have the shape [B, T], but 'text' has (1, 1, 6)",
    ),
    "attention of conversations": (
        functools.partial(check, Linear(), **summarized(attention=lambda output, batch: {"token": batch.mask[:, 0]})),
        "model 'mine': summaries.attention must have the shape [B, T], but 'token' has (1,)",
    ),
}


@pytest.mark.parametrize("mistake", BUILT)
def test_a_broken_model_is_refused_when_built(mistake):
    build, message = BUILT[mistake]
    with pytest.raises(UserError, match=f"^{re.escape(message)}") as refusal:
        build()
    assert "\n" not in str(refusal.value)


class WithAxis(Linear):
    @nn.compact
    def __call__(self, batch, *, train, axis_name=None):
        x = nn.BatchNorm(use_running_average=not train, axis_name=axis_name)(batch.features["text"])
        return Output(nn.Dense(self.num_classes)(x))


SOUND = {
    "train without a default": functools.partial(check, Altered()),
    "batch statistics": functools.partial(check, WithAxis()),
    "a declared stream": functools.partial(check, Latent(), rng_streams=("dropout", "latent")),
    "an inherited call of the loss": functools.partial(check, Linear(), InheritedLoss()),
    "a plain number for a count": functools.partial(
        check, Linear(), terms(lambda total, count: {"task": (1, total, 3)})
    ),
}


@pytest.mark.parametrize("model", SOUND)
def test_a_sound_model_is_accepted(model):
    SOUND[model]()


READERS = [(module.SPEC.name, False) for module in BUILT_IN] + [("lpgnet", True)]


@pytest.mark.parametrize(("name", "frames"), READERS)
def test_models_of_jmer_keep_their_contract(name, frames):
    declared = get_spec(name)
    sections = declared.sections()
    sections["model"] |= {"num_classes": C, "modalities": tuple(WIDTHS)}
    sections["model"] |= declared.frames_when if frames else {}
    check_model(declared.build(**sections), tuple(WIDTHS.items()), frames)


def test_the_example_batch_is_one_utterance():
    vectors, frames = example_batch(WIDTHS), example_batch(WIDTHS, frames=True)
    assert {m: x.shape for m, x in vectors.features.items()} == {m: (1, 1, width) for m, width in WIDTHS.items()}
    assert {m: x.shape for m, x in frames.features.items()} == {m: (1, 1, 1, width) for m, width in WIDTHS.items()}
    assert vectors.frames is None and all(real.shape == (1, 1, 1) for real in frames.frames.values())
