import pytest

from tutelage_student.settings import SettingsError, read_settings


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STUDENT_LISTEN", "0.0.0.0:50056"),
        ("STUDENT_LISTEN", "example.org:1"),
        ("STUDENT_LISTEN", "50056"),
        ("STUDENT_THREADS", "-1"),
        ("STUDENT_ALLOW_HUB", "perhaps"),
        ("TUTELAGE_HOME", "relative/path"),
        ("STUDENT_BASE_DTYPE", "int8"),
    ],
)
def test_a_wrong_variable_is_named_with_what_it_should_be(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=rf"^{variable}: .*should be "):
        read_settings()


def test_defaults_and_overrides(monkeypatch, tmp_path):
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    monkeypatch.setenv("STUDENT_THREADS", "3")
    settings = read_settings()
    assert settings.listen == "127.0.0.1:50056"
    assert settings.thread_count == 3
    assert settings.artifacts == tmp_path / "artifacts"
    assert settings.allow_hub is False
