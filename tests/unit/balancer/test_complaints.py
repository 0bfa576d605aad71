from fleet_balancer.haproxy.complaints import complaint

CONFIGURATION = """\
defaults
    mode http
frontend http-0.0.0.0:80
    bind fd@7
backend web.replay
    http-reuse always
    default-server slowstart 1s
cache api
    total-max-size 4
"""
POOLS = {"web": ["http-0.0.0.0:80", "http-0.0.0.0:81"], "api": ["http-0.0.0.0:80"]}


def said(line: int, words: str = "unknown keyword 'x'.") -> str:
    return (
        "[NOTICE]   (1) : haproxy version is 2.8.25\n[WARNING]  (1) : config : this is nothing.\n"
        f"[ALERT]    (1) : config : parsing [/run/haproxy-1.cfg:{line}] : {words}\n"
        "[ALERT]    (1) : config : Error(s) found in configuration file : /run/haproxy-1.cfg\n"
        "[ALERT]    (1) : config : Fatal errors found in configuration.\n"
    )


def test_the_section_of_the_line_says_whose_route_it_is() -> None:
    found = complaint(said(7), CONFIGURATION, POOLS)
    assert (found.pool, found.words) == ("web", "unknown keyword 'x', in `default-server slowstart 1s`")
    assert complaint(said(9), CONFIGURATION, POOLS).pool == "api"


def test_an_address_that_apps_share_is_nobodys_and_so_is_what_all_have() -> None:
    assert complaint(said(4), CONFIGURATION, POOLS).pool == ""
    assert complaint(said(4), CONFIGURATION, {"web": ["http-0.0.0.0:80"]}).pool == "web"
    assert complaint(said(2), CONFIGURATION, POOLS).pool == ""
    assert complaint(said(4000), CONFIGURATION, POOLS).pool == "api", "the last section there is"


def test_a_complaint_without_a_line_names_a_section() -> None:
    alert = "[ALERT] (1) : config : backend 'web.once', server 'web.once/s1': unable to find it.\n"
    found = complaint(alert, CONFIGURATION, POOLS)
    assert (found.pool, found.words) == ("web", "backend 'web.once', server 'web.once/s1': unable to find it.")
    assert complaint("[ALERT] (1) : cannot allocate memory", CONFIGURATION, POOLS).words == "cannot allocate memory"
    assert complaint("Killed\n", CONFIGURATION, POOLS).words == "Killed"
    assert complaint("", CONFIGURATION, POOLS).words == "it said nothing"


def test_a_complaint_is_one_line_however_long_what_it_is_about() -> None:
    words = complaint(said(7, f"regex '{'a' * 50_000}' is too large"), CONFIGURATION, POOLS).words
    assert len(words) < 400
    assert "is too large" in words
