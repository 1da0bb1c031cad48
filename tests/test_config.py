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

from sfss.addresses import Address
from sfss.config import (
    LARGEST_FILE,
    LARGEST_RECORD,
    SMALLEST_RECORD,
    SPREAD,
    Namespace,
    Policy,
    Rules,
    Settings,
    as_dict,
    decode,
    encode,
    load,
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


@pytest.mark.parametrize(
    ("host", "secret"), [("127.0.0.1", ""), ("127.9.9.9", ""), ("::1", ""), ("localhost", ""), ("0.0.0.0", "s3cr3t")]
)
def test_nodes_may_come_without_a_secret_where_only_this_machine_can_ask(host: str, secret: str) -> None:
    settings = load(overrides={"server": {"host": host}, "registration": {"enabled": True, "secret": secret}})
    assert settings.registration.enabled


def test_the_key_of_a_node_is_no_setting() -> None:
    assert load(environment={"SFSS_NODE_KEY": "s3cr3t"}) == Settings()


# --- what is said of a mistake ---


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"server": {"prot": 1}}, "server.prot is no setting of sfss: did you mean server.port?"),
        ({"server": {"Port": 1}}, "server.Port is no setting of sfss: did you mean server.port?"),
        ({"limits": {"max_filesize": 1}}, "did you mean limits.max_file_size?"),
        ({"sever": {"port": 1}}, "sever is no setting of sfss: did you mean server?"),
        ({"storages": {}}, "did you mean storage?"),
        ({"port": 80}, "port is no setting of sfss: did you mean server.port?"),
        ({"post": {"enabled": True}, "namespaces": {"required": True}}, "post.enabled: every path is a file then"),
        ({"json": {"prefix": "/clients/"}}, "json.prefix: no path begins so"),
        ({"json": {"prefix": "clients"}}, "json.prefix: 'clients' is no folder: write 'clients/'"),
        ({"json": {"prefix": "c/", "max_file_size": "1GiB"}}, "json.max_file_size: 1073741824 bytes; 1 byte to 256MiB"),
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
        (
            {"server": {"host": "0.0.0.0"}, "registration": {"enabled": True}},
            "registration.secret: it is empty, and sfss answers on 0.0.0.0",
        ),
        ({"server": {"host": "sfss.example"}, "registration": {"enabled": True}}, "registration.secret: it is empty"),
        (
            {"server": {"trusted_proxies": ["10.0.0.5"]}, "registration": {"enabled": True}},
            "registration.secret: it is empty, and sfss answers for others, by 10.0.0.5",
        ),
        ({"registration": {"refresh": 0}}, "registration.refresh: expected `float` > 0"),
        ({"registration": {"share": 1.1}}, "registration.share: expected `float` <= 1"),
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
        (
            {"access": {"anonymous": ["reed"]}},
            "access.anonymous: 'reed' is no right that everybody can have: there are",
        ),
        ({"access": {"anonymous": ["admin"]}}, "access.anonymous: 'admin' is no right that everybody can have"),
        ({"access": {"anonymous": "read"}}, "access.anonymous: expected `array`, got `str`"),
        ({"access": {"allow": ["10.0.0.5/8"]}}, "access.allow: '10.0.0.5/8' is an address with its network"),
        ({"access": {"deny": ["everybody"]}}, "access.deny: 'everybody' is neither an address nor a network"),
        ({"access": {"key_rate": -1}}, "access.key_rate: expected `float` >= 0"),
        ({"access": {"key_burst": 5}}, "access.key_burst: it goes with access.key_rate, which isn't set"),
        ({"access": {"signing_secrets": ["short"]}}, "access.signing_secrets[0]: a secret has 16 characters at least"),
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
        (
            {"prefix": "a/", "anonymous": ["admin"]},
            "anonymous of the policy for 'a/': 'admin' is no right that everybody",
        ),
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


# --- namespaces ---


def namespaces(*given: object, **sections: Any) -> Settings:
    nodes = {"nodes": ["a:1", "b:1", "c:1"]}
    return load(overrides={"namespace": given, "storage": nodes, **sections})


def test_a_namespace_is_a_policy_for_its_folder() -> None:
    settings = namespaces(
        {"name": "cut", "layout": "raid0", "pieces": 3},
        {"name": "mirrored", "layout": "raid1", "copies": 2, "write_once": True},
        {"name": "small", "max_file_size": "1KiB", "quota": "1MiB"},
        policy=[{"prefix": "mirrored/three/", "copies": 3}, {"prefix": "small", "copies": 2}],
    )
    mirrored = ONE._replace(spread=1, copies=2, write_once=True)
    assert settings.by_prefix == {
        "cut/": ONE._replace(pieces=3, spread=3),
        "mirrored/": mirrored,
        "small/": ONE._replace(max_file_size=1024, setting="max_file_size of the namespace 'small'", counted="small"),
        "mirrored/three/": mirrored._replace(copies=3),
        "small": ONE._replace(copies=2),  # which is also of smaller/, and so of no namespace
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, 'name of namespace number 1: it is missing; write e.g. name = "photos"'),
        ({"name": ""}, "the namespace '': a name has 1 to 63 of A-Z a-z 0-9 . _ ~ -, and doesn't begin with a dot"),
        ({"name": ".."}, "the namespace '..': a name has 1 to 63 of"),
        ({"name": "a/b"}, "the namespace 'a/b': a name has 1 to 63 of"),
        ({"name": "a%2f"}, "the namespace 'a%2f': a name has 1 to 63 of"),
        ({"name": "фото"}, "the namespace 'фото': a name has 1 to 63 of"),
        ({"name": "x" * 64}, "a name has 1 to 63 of"),
        ({"name": "Status"}, "the namespace 'Status': /status is a page of sfss: choose another name"),
        ({"name": "a", "layout": "raid5"}, "layout of the namespace 'a': invalid enum value 'raid5'"),
        ({"name": "a", "layout": "raid0"}, "pieces of the namespace 'a': raid0 cuts files in equal pieces: say how"),
        ({"name": "a", "layout": "raid1"}, "copies of the namespace 'a': raid1 mirrors files: say how many copies"),
        ({"name": "a", "layout": "raid1", "copies": 2, "pieces": 2}, "raid1 doesn't cut files: leave it out"),
        ({"name": "a", "copies": 4}, "copies of the namespace 'a': 4 copies need as many nodes, and there are 3"),
        ({"name": "a", "quota": "10MB"}, "quota of the namespace 'a': '10MB' is not a size"),
        ({"name": "a", "quota": 2**61}, "quota of the namespace 'a': 2305843009213693952 bytes; at most"),
        ({"name": "a", "anonymous": ["delete"]}, "anonymous[0] of the namespace 'a': invalid enum value 'delete'"),
        ({"name": "a", "quotas": 1}, "quotas of the namespace 'a' is no setting of sfss: did you mean namespace.quota"),
        (5, "namespace number 1: expected `object`, got `int`"),
    ],
)
def test_a_wrong_namespace_is_named(given: object, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        namespaces(given)


def test_one_name_is_one_namespace_and_its_folder_has_no_policy_besides() -> None:
    with pytest.raises(ConfigError, match="the namespace 'a' stands there twice: write all of it in the one"):
        namespaces({"name": "a"}, {"name": "a"})
    with pytest.raises(ConfigError, match="the policy for 'a/' stands there twice: write all of it in the one"):
        namespaces({"name": "a"}, policy=[{"prefix": "a/"}])


def test_namespaces_can_not_be_set_in_the_environment() -> None:
    with pytest.raises(ConfigError, match=re.escape("namespaces can't be set there; write [[namespace]] in a file")):
        load(environment={"SFSS_NAMESPACE_NAME": "a"})


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
            "namespace": [{"name": "photos", "quota": "1GiB", "anonymous": ["read"]}],
        }
    )
    line = encode(settings)
    assert b"\n" not in line
    assert decode(line) == settings


# --- access ---


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "2001:db8::7", "files.example.org", "127.0.0.1.nip.io"])
def test_who_serves_others_has_to_say_what_everybody_may(host: str, toml: Path) -> None:
    server = {"server": {"host": host}}
    with pytest.raises(ConfigError, match=re.escape(f"server.host: {host} lets others in, and nothing says what they")):
        load(None, {}, server, serves=True)
    assert load(None, {}, server).server.host == host  # for a client, say
    for text, rights in (("", ()), ("read", ("read",)), ("read,write", ("read", "write"))):
        assert load(None, {"SFSS_ACCESS_ANONYMOUS": text}, server, serves=True).access.anonymous == rights
    toml.write_text('[access]\nanonymous = ["read", "write"]\n')
    assert load(str(toml), {}, server, serves=True).access.anonymous == ("read", "write")
    toml.write_text('[access]\ndeny = ["10.0.0.1"]\n[[policy]]\nprefix = "a/"\nanonymous = ["read"]\n')
    with pytest.raises(ConfigError, match="lets others in"):
        load(str(toml), {}, server, serves=True)


def test_who_serves_a_proxy_has_to_say_it_too() -> None:
    server = {"server": {"trusted_proxies": ["127.0.0.1"]}}
    with pytest.raises(ConfigError, match=r"server.trusted_proxies: 127.0.0.1 lets others in, and nothing says what"):
        load(None, {}, server, serves=True)
    assert load(None, {"SFSS_ACCESS_ANONYMOUS": "read"}, server, serves=True).access.anonymous == ("read",)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_who_serves_this_machine_only_need_not(host: str) -> None:
    assert load(None, {}, {"server": {"host": host}}, serves=True).access.anonymous == ("read", "write")


def test_what_a_client_shows_is_no_setting() -> None:
    assert load(environment={"SFSS_KEY": "sfss_a_b"}) == Settings()


def test_what_is_wrong_with_a_secret_is_said_without_it() -> None:
    for secret in ("short,secret", "a secret with blanks", "a-secret,with-commas", "\x00" * 16, "geheimnis-für-alle"):
        with pytest.raises(ConfigError, match=r"access\.signing_secrets\[1\]: a secret has 16") as refused:
            load(overrides={"access": {"signing_secrets": ["x" * 16, secret]}})
        assert secret not in str(refused.value)


def test_policies_say_what_everybody_may_under_their_prefix() -> None:
    given = [{"prefix": "a/", "anonymous": []}, {"prefix": "a/b/", "copies": 1}, {"prefix": "c", "anonymous": ["read"]}]
    found = load(overrides={"access": {"anonymous": ["write"]}, "policy": given})
    assert found.anonymous_by_prefix == {"a/": (), "a/b/": ("write",), "c": ("read",)}


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
    there += [("namespace", key) for key in Namespace.__struct_fields__]
    assert sorted((section, key) for section, key, _ in _shown()) == sorted(there)


def test_the_page_of_settings_shows_the_defaults() -> None:
    for section, key, value in _shown():
        lists = {"policy": [{"prefix": "", key: value}], "namespace": [{"name": "x", key: value}]}
        shown = load(overrides={section: lists.get(section, {key: value})})
        rules = {rules._replace(spread=SPREAD, setting=ONE.setting, counted="") for rules in shown.rules}
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
