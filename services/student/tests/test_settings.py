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
        ("TUTELAGE_TOKEN", "short"),
        ("TUTELAGE_TOKEN", "sixteen letters and spaces"),
        ("TUTELAGE_TOKEN_FILE", "/no/such/file"),
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


def test_beyond_loopback_only_with_a_token(monkeypatch, tmp_path):
    monkeypatch.setenv("STUDENT_LISTEN", "0.0.0.0:50056")
    secret = tmp_path / "token"
    secret.write_text("0123456789abcdef\n")
    monkeypatch.setenv("TUTELAGE_TOKEN_FILE", str(secret))
    assert read_settings().shared_token == "0123456789abcdef"
    monkeypatch.setenv("TUTELAGE_TOKEN", "fedcba9876543210")
    with pytest.raises(SettingsError, match="are both set"):
        read_settings()
    monkeypatch.delenv("TUTELAGE_TOKEN_FILE")
    settings = read_settings()
    assert settings.shared_token == "fedcba9876543210"
    assert "fedcba" not in repr(settings)
