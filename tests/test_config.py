"""Settings: who wins, and that every mistake is answered with the setting's name and a mend."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfss.config import (
    LARGEST_FILE,
    LARGEST_RECORD,
    SMALLEST_RECORD,
    SPREAD,
    Address,
    Policy,
    Rules,
    Settings,
    as_dict,
    decode,
    encode,
    load,
    parse_address,
    parse_size,
)
from sfss.errors import ConfigError

CONF = Path(__file__).resolve().parent.parent / "conf" / "sfss.toml"

Sections = dict[str, dict[str, object]]
ONE = Rules(1, SPREAD, 1, 1, 1, 2 * 2**20, "limits.max_file_size")  # what holds for all paths, by default


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "sfss.toml"


# --- who wins ---


def test_nothing_set_means_the_defaults() -> None:
    assert load() == Settings()


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(toml: Path) -> None:
    toml.write_text('[server]\nport = 1\nhost = "file"\ntls_key = "file"\ntls_certificate = "file"\n')
    environment = {"SFSS_SERVER_PORT": "2", "SFSS_SERVER_HOST": "environment"}
    server = load(str(toml), environment, {"server": {"port": 3}}).server
    assert (server.port, server.host, server.tls_key) == (3, "environment", "file")
    assert server.shutdown_timeout == Settings().server.shutdown_timeout


def test_every_setting_can_be_set_in_the_environment() -> None:
    written = {
        f"SFSS_{section}_{key}".upper(): ",".join(value) if isinstance(value, tuple) else str(value)
        for section, keys in as_dict(Settings()).items()
        for key, value in keys.items()
    }
    assert load(environment=written) == Settings()


@pytest.mark.parametrize("text", ["a:1,b:2", "a:1, b:2", "a:1 b:2", " a:1\n b:2 ,", "a:1,,b:2"])
def test_a_list_in_the_environment_is_separated_by_commas_or_space(text: str) -> None:
    assert load(environment={"SFSS_STORAGE_NODES": text}).storage.nodes == ("a:1", "b:2")


def test_an_empty_list_in_the_environment_is_empty(toml: Path) -> None:
    toml.write_text('[storage]\nnodes = ["a:1"]\n')
    assert load(str(toml), {"SFSS_STORAGE_NODES": ""}).storage.nodes == ()


def test_other_programs_variables_are_left_alone() -> None:
    assert load(environment={"PATH": "/bin", "SFSSX_PORT": "1", "MY_SFSS_SERVER_PORT": "1"}) == Settings()


def test_sfss_config_names_the_file_and_is_no_setting() -> None:
    assert load(environment={"SFSS_CONFIG": "/etc/sfss.toml"}) == Settings()


# --- what is said of a mistake ---


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"server": {"prot": 1}}, "server.prot is no setting of sfss: did you mean server.port?"),
        ({"server": {"Port": 1}}, "server.Port is no setting of sfss: did you mean server.port?"),
        ({"limits": {"max_filesize": 1}}, "did you mean limits.max_file_size?"),
        ({"sever": {"port": 1}}, "sever is no setting of sfss: did you mean server?"),
        ({"storages": {}}, "did you mean storage?"),
        ({"port": 80}, "port is no setting of sfss: there are server.host, server.port,"),
        ({"server": 80}, "server: write it as a section, [server], with its keys below"),
        ({"xyz": {}}, "xyz is no setting of sfss: there are server.host, server.port,"),
        ({"server": {"port": 65536}}, "server.port: expected `int` <= 65535"),
        ({"server": {"port": -1}}, "server.port: expected `int` >= 0"),
        ({"server": {"port": "http"}}, "server.port: expected `int`, got `str`"),
        ({"server": {"host": 1}}, "server.host: expected `str`, got `int`"),
        (
            {"server": {"workers": 0}},
            "server.workers: '0' is no number of workers: write 1 to 256, or \"auto\" for one",
        ),
        ({"server": {"workers": 257}}, "server.workers: '257' is no number of workers"),
        ({"server": {"workers": -1}}, "server.workers: '-1' is no number of workers"),
        ({"server": {"workers": 1.5}}, "server.workers: '1.5' is no number of workers"),
        ({"server": {"workers": True}}, "server.workers: 'True' is no number of workers"),
        ({"server": {"workers": "many"}}, "server.workers: 'many' is no number of workers"),
        ({"server": {"workers": ""}}, "server.workers: '' is no number of workers"),
        ({"storage": {"timeout": 0}}, "storage.timeout: expected `float` > 0"),
        ({"storage": {"timeout": 3601}}, "storage.timeout: expected `float` <= 3600"),
        ({"storage": {"nodes": "a:1"}}, "storage.nodes: expected `array`, got `str`"),
        ({"storage": {"nodes": [1]}}, "storage.nodes[0]: expected `str`, got `int`"),
        ({"storage": {"nodes": ["a"]}}, "storage.nodes: 'a' is not a node: write \"host:port\""),
        ({"storage": {"nodes": ["a:1", "a:1"]}}, "storage.nodes: 'a:1' stands there twice"),
        ({"storage": {"nodes": ["x=a:1", "x=b:1"]}}, "storage.nodes: 'x' stands there twice"),
        ({"storage": {"nodes": ["x=a:1", "y=a:1"]}}, "storage.nodes: 'a:1' stands there twice"),
        ({"storage": {"nodes": ["[::1]:1", "x=[::1]:1"]}}, "storage.nodes: '[::1]:1' stands there twice"),
        ({"embedded": {"nodes": 0}}, "embedded.nodes: expected `int` >= 1"),
        ({"embedded": {"nodes": 65}}, "embedded.nodes: expected `int` <= 64"),
        ({"embedded": {"first_port": 65534}}, "embedded.first_port: the embedded nodes' ports would go beyond 65535"),
        ({"embedded": {"durability": "yes"}}, 'embedded.durability: \'yes\' is neither "fsync" nor "os"'),
        ({"limits": {"max_file_size": "2MB"}}, "limits.max_file_size: '2MB' is not a size: write bytes, or"),
        ({"limits": {"max_file_size": -1}}, "limits.max_file_size: '-1' is not a size"),
        ({"limits": {"max_file_size": True}}, "limits.max_file_size: 'True' is not a size"),
        ({"limits": {"max_file_size": 1.5}}, "limits.max_file_size: '1.5' is not a size"),
        ({"limits": {"max_file_size": LARGEST_FILE + 1}}, "limits.max_file_size: 1099511627777 bytes; at most 1TiB"),
        ({"limits": {"record_size": "1KiB"}}, "limits.record_size: 1024 bytes; 64KiB to 64MiB are possible"),
        ({"limits": {"record_size": LARGEST_RECORD + 1}}, "limits.record_size: 67108865 bytes; 64KiB to 64MiB are"),
        ({"limits": {"transfer_memory": 1}}, "limits.transfer_memory: 1 bytes; 1MiB at least is needed"),
        ({"limits": {"linger": -1}}, "limits.linger: expected `float` >= 0"),
        ({"limits": {"upload_time": 0}}, "limits.upload_time: expected `float` > 0"),
        ({"server": {"host": ""}}, "server.host: it is empty; leave it out for 127.0.0.1"),
        ({"embedded": {"data": ""}}, "embedded.data: it is empty; leave it out for sfss-data"),
        ({"server": {"host": "a\0b"}}, "server.host: it holds a control character"),
        ({"embedded": {"data": "a\0b"}}, "embedded.data: it holds a control character"),
        ({"server": {"tls_key": "k.pem"}}, "server.tls_certificate and server.tls_key go together"),
        (
            {"server": {"trusted_proxies": ["proxy"]}},
            "server.trusted_proxies: 'proxy' is neither an address nor a network",
        ),
        (
            {"server": {"trusted_proxies": ["::1", ""]}},
            "server.trusted_proxies: '' is neither an address nor a network",
        ),
        ({"server": {"trusted_proxies": ["10.0.0.5/8"]}}, "write the one or the other, 10.0.0.0/8"),
        ({"server": {"trusted_proxies": ["10.0.0.0/33"]}}, "'10.0.0.0/33' is neither an address nor a network"),
        ({"server": {"trusted_proxies": ["::ffff:10.0.0.5"]}}, "is IPv4 in the form of IPv6: write it as IPv4"),
        ({"server": {"trusted_proxies": "10.0.0.5"}}, "server.trusted_proxies: expected `array`, got `str`"),
        ({"server": {"tls_certificate": "c.pem"}}, "server.tls_certificate and server.tls_key go together"),
    ],
)
def test_a_wrong_setting_is_named_with_its_mend(sections: Sections, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load(overrides=sections)


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("SFSS_SERVER_PROT", "1", "SFSS_SERVER_PROT in the environment is no setting of sfss: did you mean server."),
        ("SFSS_PORT", "1", "SFSS_PORT in the environment is no setting of sfss"),
        ("SFSS_SERVER", "1", "SFSS_SERVER in the environment is no setting of sfss"),
        ("SFSS_", "1", "SFSS_ in the environment is no setting of sfss: there are server.host, server.port,"),
        ("SFSS_SERVER_PORT", "", "server.port: expected `int`, got `str`"),
        ("SFSS_SERVER_PORT", "http", "server.port: expected `int`, got `str`"),
        ("SFSS_STORAGE_TIMEOUT", "nan", "storage.timeout: expected `float`"),
        ("SFSS_STORAGE_NODES", "a", "storage.nodes: 'a' is not a node"),
        ("SFSS_LIMITS_MAX_FILE_SIZE", "many", "limits.max_file_size: 'many' is not a size"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named_with_its_mend(variable: str, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load(environment={variable: text})


@pytest.mark.parametrize("content", [b"server", b"[server]\nport = ", b"[server]\nport = 1\nport = 2", b"\xff"])
def test_a_file_that_is_not_toml_is_named(toml: Path, content: bytes) -> None:
    toml.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(f"the configuration {toml} is not TOML")):
        load(str(toml))


def test_a_file_that_isnt_there_is_named(toml: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"the configuration {toml} can't be read: No such file")):
        load(str(toml))


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(("server", "storage", "embedded", "limits", "other")),
        st.dictionaries(
            st.sampled_from(("host", "port", "nodes", "timeout", "max_file_size", "data", "first_port", "other")),
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers() | st.text()),
        )
        | st.integers(),
    )
)
def test_no_mistake_is_anything_but_a_configuration_error(sections: dict[str, Any]) -> None:
    try:
        assert isinstance(load(overrides=sections), Settings)
    except ConfigError as error:
        assert str(error)


# --- policies ---


def policies(*given: object, **storage: object) -> Settings:
    return load(overrides={"policy": given, "storage": storage})


def test_a_policy_takes_what_it_does_not_say_from_the_storage_and_the_limits(toml: Path) -> None:
    toml.write_text("""
        [storage]
        copies = 3
        write_quorum = 2
        read_quorum = 2
        [limits]
        max_file_size = "1GiB"
        [[policy]]
        prefix = "images/"
        pieces = 3
        [[policy]]
        prefix = "images/raw/"
        copies = 1
        max_file_size = "5GiB"
        [[policy]]
        prefix = ""
        copies = 2
        read_quorum = 1
    """)
    settings = load(str(toml))
    general = Rules(1, SPREAD, 3, 2, 2, 2**30, "limits.max_file_size")
    assert settings.general == general
    assert settings.by_prefix == {
        "images/": general._replace(pieces=3, spread=3),
        "images/raw/": Rules(1, SPREAD, 1, 1, 1, 5 * 2**30, "max_file_size of the policy for 'images/raw/'"),
        "": Rules(1, SPREAD, 2, 2, 1, 2**30, "limits.max_file_size"),
    }
    assert list(settings.rules) == [general, *settings.by_prefix.values()]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"prefix": "a/", "copies": 4}, "copies of the policy for 'a/': 4 copies need as many nodes, and there are 3"),
        ({"prefix": "a/", "pieces": 4}, "pieces of the policy for 'a/': 4 pieces need as many nodes, and there are 3"),
        ({"prefix": "a/", "write_quorum": 2}, "write_quorum of the policy for 'a/': 2 of 1 copies can't be; raise"),
        ({"prefix": "a/", "copies": 2, "read_quorum": 3}, "read_quorum of the policy for 'a/': 3 of 2 copies can't be"),
        ({"prefix": "a/", "copies": 0}, "copies of the policy for 'a/': expected `int` >= 1"),
        ({"prefix": "a/", "pieces": 65}, "pieces of the policy for 'a/': expected `int` <= 64"),
        ({"prefix": "a/", "max_file_size": "2MB"}, "max_file_size of the policy for 'a/': '2MB' is not a size"),
        ({"prefix": "a/", "max_file_size": "2TiB"}, "max_file_size of the policy for 'a/': 2199023255552 bytes; at"),
        (
            {"prefix": "a/", "piece": 2},
            "piece of the policy for 'a/' is no setting of sfss: did you mean policy.piece",
        ),
        ({"pieces": 2}, 'prefix of policy number 1: it is missing; write e.g. prefix = "images/", or "" for all'),
        ({"prefix": 5}, "prefix of policy number 1: expected `str`, got `int`"),
        (5, "policy number 1: expected `object`, got `int`"),
        ({"prefix": "/a"}, "prefix of the policy for '/a': no path begins so: the path begins with '/': leave it out"),
        ({"prefix": "a//"}, "prefix of the policy for 'a//': no path begins so: the path holds an empty segment"),
        ({"prefix": "../"}, "prefix of the policy for '../': no path begins so: the path holds the segment '..'"),
        ({"prefix": "a\n"}, "no path begins so: the path holds the control character U+000A"),
    ],
)
def test_a_wrong_policy_is_named_by_its_prefix(given: object, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        policies(given)


def test_of_several_policies_the_wrong_one_is_named() -> None:
    with pytest.raises(ConfigError, match="copies of the policy for 'b/'"):
        policies({"prefix": "a/"}, {"prefix": "b/", "copies": -1})


def test_one_prefix_has_one_policy() -> None:
    with pytest.raises(ConfigError, match="the policy for 'a/' stands there twice"):
        policies({"prefix": "a/"}, {"prefix": "a/", "pieces": 2})


@pytest.mark.parametrize("prefix", ["", "a", "images/", "images/.", "images/..", "a b/ü", "x" * 1000])
def test_whatever_a_path_can_begin_with_can_have_a_policy(prefix: str) -> None:
    assert list(policies({"prefix": prefix}).by_prefix) == [prefix]


def test_policies_count_the_nodes_that_there_will_be() -> None:
    two_pieces = {"prefix": "a/", "pieces": 2}
    nodes = {"nodes": ["a:1"], "joining": ["b:1"]}
    assert policies(two_pieces, **nodes).by_prefix["a/"].pieces == 2
    says = "pieces of the policy for 'a/': 2 pieces need as many nodes, and there are 1 when those of storage.leaving"
    with pytest.raises(ConfigError, match=says):
        policies(two_pieces, nodes=["a:1"], leaving=["b:1"])


@pytest.mark.parametrize("given", [{"prefix": "a/"}, 5, "a/"])
def test_policies_are_a_list(given: object) -> None:
    with pytest.raises(ConfigError, match=re.escape("policy: write each as a section of a list, [[policy]], with its")):
        load(overrides={"policy": given})


def test_other_sections_are_none(toml: Path) -> None:
    toml.write_text("[[server]]\nport = 1\n")
    with pytest.raises(ConfigError, match=re.escape("server: write it as a section, [server], with its keys below")):
        load(str(toml))


@pytest.mark.parametrize("variable", ["SFSS_POLICY", "SFSS_POLICY_COPIES", "SFSS_POLICY_0_PREFIX"])
def test_policies_can_not_be_set_in_the_environment_and_it_is_said_where_they_can(variable: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable} in the environment: policies can't be set there; write"):
        load(environment={variable: "1"})


# --- sizes and addresses ---


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("5B", 5),
        ("64KiB", 65536),
        ("2MiB", 2097152),
        ("2 MiB", 2097152),
        (" 1GiB ", 1073741824),
        ("1TiB", 1099511627776),
    ],
)
def test_a_size_may_be_written_in_bytes_or_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5MiB", "2MB", "2mib", "1PiB", "1 2", "9" * 16, "0x10", "1e6"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size: write bytes, or a number with KiB, MiB, GiB or TiB"):
        parse_size(text)


@pytest.mark.parametrize("given", ["3MiB", 3145728, "3145728"])
def test_the_largest_file_may_be_given_in_any_way(given: object) -> None:
    assert load(overrides={"limits": {"max_file_size": given}}).limits.max_file_size == 3145728


def test_the_largest_file_may_be_as_large_as_is_said() -> None:
    assert load(overrides={"limits": {"max_file_size": "1TiB"}}).limits.max_file_size == LARGEST_FILE


@pytest.mark.parametrize("size", [SMALLEST_RECORD, LARGEST_RECORD])
def test_records_may_be_as_small_and_as_large_as_is_said(size: int) -> None:
    assert load(overrides={"limits": {"record_size": size}}).limits.record_size == size


@pytest.mark.parametrize(
    ("text", "host", "port", "name"),
    [
        ("localhost:11211", "localhost", 11211, "localhost:11211"),
        ("127.0.0.1:1", "127.0.0.1", 1, "127.0.0.1:1"),
        ("[::1]:65535", "::1", 65535, "[::1]:65535"),
        ("a=10.0.0.1:7900", "10.0.0.1", 7900, "a"),
        ("a=[fe80::1]:7900", "fe80::1", 7900, "a"),
        ("rack-1/a:1=10.0.0.1:7900", "10.0.0.1", 7900, "rack-1/a:1"),
        ("x" * 250 + "=h:1", "h", 1, "x" * 250),
    ],
)
def test_an_address_tells_host_port_and_name(text: str, host: str, port: int, name: str) -> None:
    address = parse_address(text)
    assert address == Address(host, port, name)
    assert str(address) == text.rpartition("=")[2]


@pytest.mark.parametrize(
    "text",
    ["", "a", "a:", ":1", "a:0", "a:65536", "a:x", "a:1:2", "::1:80", "[::1]", "[::1]80", "[a b]:1", "[]:1", "a b:1",
     "http://a:1", "=a:1", "a b=h:1", "é=h:1", "a\n=h:1", "a=b=h:1", "x" * 251 + "=h:1", "a=", "a=h"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a node|a node's name is made of"):
        parse_address(text)


def test_with_no_nodes_named_there_are_the_embedded_ones_and_ports_dont_place_them() -> None:
    nodes = load(overrides={"embedded": {"nodes": 2, "first_port": 7000}}).nodes
    assert nodes == (Address("127.0.0.1", 7000, "embedded-0"), Address("127.0.0.1", 7001, "embedded-1"))


def test_named_nodes_take_the_place_of_the_embedded_ones() -> None:
    assert load(overrides={"storage": {"nodes": ["x=a:1"]}}).nodes == (Address("a", 1, "x"),)


@pytest.mark.parametrize(("given", "workers"), [(1, 1), (256, 256), ("4", 4), (" 4 ", 4)])
def test_workers_are_a_number(given: object, workers: int) -> None:
    assert load(overrides={"server": {"workers": given}}).server.workers == workers


def test_auto_workers_are_as_many_as_there_are_cores_to_use() -> None:
    for source in ({"overrides": {"server": {"workers": "auto"}}}, {"environment": {"SFSS_SERVER_WORKERS": "auto"}}):
        assert load(**source).server.workers == len(os.sched_getaffinity(0))


def test_settings_come_to_another_process_as_they_are() -> None:
    settings = load(
        overrides={
            "server": {"host": "é", "workers": 3},
            "storage": {"nodes": ["a=b:1", "c:2"], "timeout": 0.1},
            "limits": {"max_file_size": "1TiB"},
            "policy": [{"prefix": "фото/", "copies": 2, "max_file_size": "3MiB"}],
        }
    )
    line = encode(settings)
    assert b"\n" not in line
    assert decode(line) == settings


# --- the page that explains them ---


def test_the_settings_that_come_with_sfss_change_nothing() -> None:
    assert load(str(CONF)) == Settings()


def _shown() -> list[tuple[str, str, object]]:
    """Every ``key = value`` and ``# key = value`` of conf/sfss.toml, with its section."""
    section, shown = "", []
    for line in CONF.read_text("utf-8").splitlines():
        if match := re.fullmatch(r"(?:# )?\[{1,2}(\w+)\]{1,2}", line):
            section = match[1]
        elif match := re.fullmatch(r"(?:# ?)?(\w+ = .+)", line):
            shown += [(section, key, value) for key, value in tomllib.loads(match[1]).items()]
    return shown


def test_the_page_of_settings_shows_each_of_them_once() -> None:
    there = [(section, key) for section, keys in as_dict(Settings()).items() for key in keys]
    there += [("policy", key) for key in Policy.__struct_fields__]
    assert sorted((section, key) for section, key, _ in _shown()) == sorted(there)


def test_the_page_of_settings_shows_the_defaults() -> None:
    for section, key, value in _shown():
        given = {section: [{"prefix": "", key: value}] if section == "policy" else {key: value}}
        shown = load(overrides=given)
        rules = {rules._replace(spread=SPREAD, setting=ONE.setting) for rules in shown.rules}
        assert rules == {ONE}, f"{section}.{key} = {value} is not the default"
        assert as_dict(shown) == as_dict(Settings()), f"{section}.{key} = {value} is not the default"


def test_what_kubernetes_says_of_a_service_named_sfss_is_not_taken_for_settings() -> None:
    told = {
        "SFSS_SERVICE_HOST": "10.0.0.1",
        "SFSS_SERVICE_PORT": "8255",
        "SFSS_SERVICE_PORT_HTTP": "8255",
        "SFSS_PORT": "tcp://10.0.0.1:8255",
        "SFSS_PORT_8255_TCP_ADDR": "10.0.0.1",
    }
    assert load(environment=told) == load()
    with pytest.raises(ConfigError, match="SFSS_PORT"):
        load(environment={"SFSS_PORT": "80"})


def test_two_names_that_are_one_on_the_ring_are_refused() -> None:
    with pytest.raises(ConfigError, match="'a' stands there twice"):
        load(overrides={"storage": {"nodes": ["a:11211", "a=b:1"]}})


def test_the_settings_for_production_are_three_copies_that_every_read_sees() -> None:
    settings = load(str(CONF.with_name("production.toml")))
    assert len(settings.nodes) == settings.storage.copies == 3
    assert settings.storage.write_quorum + settings.storage.read_quorum > settings.storage.copies
