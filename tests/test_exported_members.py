"""The public names, pinned: a name added or lost is a decision, not an accident."""

import adaptkit

PUBLIC = [
    "AdaptedModel",
    "AdaptkitError",
    "Context",
    "DataError",
    "ExportMismatch",
    "GateFailed",
    "MissingExtra",
    "ModelError",
    "Profile",
    "Recipe",
    "RecipeError",
    "Report",
    "RunFolderError",
    "TargetError",
    "Technique",
    "UnsupportedLayer",
    "__version__",
    "compress",
    "dump_recipe",
    "fit",
    "load",
    "parse_recipe",
    "profile_file",
    "read_recipe",
]


def test_the_public_names():
    assert adaptkit.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(adaptkit))


def test_every_public_name_is_there():
    for name in PUBLIC:
        assert getattr(adaptkit, name) is not None


def test_every_public_error_is_one_an_except_clause_catches():
    for name, value in vars(adaptkit.errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert name in PUBLIC
            assert issubclass(value, adaptkit.AdaptkitError)


def test_another_name_is_an_attribute_error():
    assert not hasattr(adaptkit, "no_such_name")
