"""Where notifications go, and that an address stays secret."""

from __future__ import annotations

import json
import logging
import ssl
import subprocess
import sys
import time

import pytest

from december_plugin.errors import SettingsError
from december_plugin.importing.datajoint import quiet_datajoint
from december_plugin.pool.notifications import target as module
from december_plugin.pool.notifications.target import Command, DeliveryError, Message, Webhook, notification_target
from december_plugin.security.redaction import redacted
from helpers import pages, webhook
from helpers.pool_stage import is_alive
from helpers.webhook import PATH

MESSAGE = Message("1" * 32, "failed", "2 jobs failed @all <!channel>\nfor a reason: ä", {"schema": "lab", "count": 2})


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    monkeypatch.delenv("DECEMBER_NOTIFY", raising=False)
    monkeypatch.setitem(quiet_datajoint().config._conf, "december.notify", None)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_webhook_gets_json_for_several_services():
    with webhook.Webhook() as server:
        Webhook(server.address.replace("//", "//ada:lovelace@")).deliver(MESSAGE)
    (content,) = server.received
    assert content["text"] == content["content"] == "2 jobs failed @\u200ball <\u200b!channel>\nfor a reason: ä"
    assert content["allowed_mentions"] == {"parse": []}
    assert content["december"] == {"id": "1" * 32, "event": "failed", "schema": "lab", "count": 2}
    assert server.headers[0]["content-type"] == "application/json"
    assert server.headers[0]["authorization"] == "Basic YWRhOmxvdmVsYWNl"


@pytest.mark.parametrize("status", [302, 404, 500])
def test_another_answer_than_success_is_a_failure_and_no_redirection_is_followed(status):
    with webhook.Webhook(status=status) as server, pytest.raises(DeliveryError) as caught:
        Webhook(server.address).deliver(MESSAGE)
    assert str(caught.value) == f"it answers with status {status}"
    assert len(server.received) == 1


def test_a_webhook_that_hangs_is_given_up_after_seconds(monkeypatch):
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.3)
    began = time.monotonic()
    with webhook.Webhook(hangs=True) as server, pytest.raises(DeliveryError, match="no answer within"):
        Webhook(server.address).deliver(MESSAGE)
    assert time.monotonic() - began < 10


def test_certificates_are_checked(tmp_path, monkeypatch):
    certificate = tmp_path / "server.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*words, "-keyout", certificate, "-out", f"{certificate}.crt"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{certificate}.crt", certificate)
    with webhook.Webhook() as server:
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        address = server.address.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(DeliveryError, match="CERTIFICATE_VERIFY_FAILED"):
            Webhook(address).deliver(MESSAGE)
        assert server.received == []
        monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
        Webhook(address).deliver(MESSAGE)
    assert len(server.received) == 1


def test_no_message_or_log_has_more_of_an_address_than_the_host(caplog):
    with webhook.Webhook() as server:
        address = server.address
    target = Webhook(address)  # where nobody listens now
    with caplog.at_level(logging.DEBUG), pytest.raises(DeliveryError) as caught:
        target.deliver(MESSAGE)
    assert "refused" in str(caught.value)
    assert "secret-token" not in str(caught.value) + repr(target) + redacted(caplog.text)
    assert redacted(f"POST {PATH} to {address}") == "POST *** to ***"
    assert target.name == "127.0.0.1"


SCRIPT = """
import json, os, sys
details = {name: value for name, value in os.environ.items() if name.startswith("DECEMBER_EVENT")}
json.dump([sys.stdin.read(), details], open(sys.argv[1], "w"))
"""


def test_a_command_gets_the_text_and_the_fields(tmp_path):
    (tmp_path / "tell.py").write_text(SCRIPT)
    Command((sys.executable, str(tmp_path / "tell.py"), str(tmp_path / "told"))).deliver(MESSAGE)
    text, details = json.loads((tmp_path / "told").read_text())
    assert text == MESSAGE.text + "\n"
    assert json.loads(details.pop("DECEMBER_EVENT_JSON")) == MESSAGE.details()
    assert details == {
        "DECEMBER_EVENT": "failed",
        "DECEMBER_EVENT_ID": "1" * 32,
        "DECEMBER_EVENT_SCHEMA": "lab",
        "DECEMBER_EVENT_COUNT": "2",
    }


def test_a_command_that_fails_or_hangs_is_a_failure(tmp_path, monkeypatch):
    with pytest.raises(DeliveryError, match="it ended with code 4"):
        Command(("sh", "-c", "exit 4")).deliver(MESSAGE)
    with pytest.raises(DeliveryError, match="it cannot be started: No such file or directory"):
        Command((str(tmp_path / "gone"),)).deliver(MESSAGE)
    monkeypatch.setattr(module, "COMMAND_SECONDS", 0.3)
    with pytest.raises(DeliveryError, match=r"it did not end within 0.3 s"):
        Command(("sh", "-c", f"sleep 300 & echo $! > {tmp_path}/pid; wait")).deliver(MESSAGE)
    time.sleep(0.2)
    assert not is_alive(int((tmp_path / "pid").read_text()))
    Command(("true",)).deliver(Message("1", "failed", "x" * 1_000_000))  # which reads nothing


def test_the_option_goes_before_the_environment_and_that_before_the_configuration(monkeypatch, tmp_path):
    assert notification_target() is None
    monkeypatch.setitem(quiet_datajoint().config._conf, "december.notify", "https://chat.example/configured-hook")
    assert notification_target() == Webhook("https://chat.example/configured-hook")
    monkeypatch.setenv("DECEMBER_NOTIFY", "sh -c 'cat > told'")
    assert notification_target() == Command(("sh", "-c", "cat > told"))
    (tmp_path / "hook").write_text("https://chat.example/hook-in-a-file\n")
    assert notification_target(f"file:{tmp_path}/hook") == Webhook("https://chat.example/hook-in-a-file")
    # Also where nobody has asked for the target.
    assert redacted("'sh -c 'cat > told''") == "'***'"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("ftp://chat.example/a-secret", "--notify is not an address of a webhook. It must be an address that begins"),
        ("https:///a-secret", "--notify is not an address of a webhook."),
        ("tell-nobody a-secret", "--notify begins with 'tell-nobody', which is not a command here."),
        ("sh 'a-secret", "--notify is not a command (No closing quotation)."),
        ("file:/nowhere/at/all", "--notify names the file /nowhere/at/all, which cannot be read (No such file or dir"),
    ],
)
def test_mistakes_are_named_without_the_secret(value, message):
    with pytest.raises(SettingsError) as caught:
        notification_target(value)
    assert str(caught.value).startswith(message)
    assert "a-secret" not in str(caught.value)


def test_an_empty_file_and_a_setting_of_another_kind(tmp_path, monkeypatch):
    (tmp_path / "hook").write_text("\n")
    with pytest.raises(SettingsError, match=f"the file {tmp_path}/hook that --notify names is empty"):
        notification_target(f"file:{tmp_path}/hook")
    monkeypatch.setitem(quiet_datajoint().config._conf, "december.notify", ["https://chat.example"])
    with pytest.raises(SettingsError, match=r"december\.notify must be text: an address"):
        notification_target()


def test_the_script_of_the_page_mails(tmp_path, monkeypatch):
    (script,) = pages.claim("docs/running-on-your-gpus.md", "sh")
    (tmp_path / "tell.sh").write_text(script.text)
    (tmp_path / "mail").write_text(f'#!/bin/sh\nprintf "%s|" "$@" >{tmp_path}/sent\ncat >>{tmp_path}/sent\n')
    (tmp_path / "mail").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.chdir(tmp_path)
    notification_target("sh tell.sh").deliver(MESSAGE)
    assert (tmp_path / "sent").read_text() == f"-s|december: 2 failed|ada@lab.example|{MESSAGE.text}\n"
