import pytest

from fleet_balancer.driver import Target
from fleet_balancer.haproxy import replies
from fleet_balancer.haproxy.slots import Sample, Slot, SlotState

# As HAProxy 2.6.12 and 2.8.25 write them.
STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change \
srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn \
srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port
3 web.replay 1 s1 127.0.0.1 2 8 1 1 1 6 3 2 6 0 0 0 - 60203 - 0 0 - - 0
3 web.replay 2 s2 127.0.0.1 2 4 1 1 0 1 0 1 6 0 0 0 - 57413 - 0 0 - - 0
3 web.replay 3 s3 127.0.0.1 0 5 1 1 0 1 0 1 6 0 0 0 - 1 - 0 0 - - 0
3 web.replay 4 s4 127.0.0.1 0 0 1 1 0 1 0 1 6 0 0 0 - 2 - 0 0 - - 0

"""
CONNECTIONS = """# bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est unsafe_nb safe_nb idle_lim \
idle_cur idle_per_thr[1]
web.replay/s1 3/1 127.0.0.1 56645 - 5000 2 1 1 0 0 -1 0 0
web.replay/s2 3/2 127.0.0.1 1 - 5000 0 0 0 0 0 -1 3 3
"""


def test_server_states_become_slots() -> None:
    rows = replies.servers_state(STATE)
    assert [row.slot().state for row in rows] == [
        SlotState.DRAINING,
        SlotState.ACTIVE,
        SlotState.QUARANTINED,
        SlotState.ACTIVE,
    ]
    assert rows[1].slot() == Slot(2, SlotState.ACTIVE, Target("127.0.0.1", 57413))
    assert [row.hidden for row in rows] == [False, False, True, True]


def test_connections_are_read_by_slot() -> None:
    assert replies.connections(CONNECTIONS) == {1: Sample(used=2), 2: Sample(idle=3)}


def test_sessions_and_queue_are_summed() -> None:
    assert replies.sessions("# pxname,svname,qcur,qmax,scur,\nweb,s1,1,0,2,\nweb,s2,0,0,3,\n\n") == Sample(5, 1)
    assert replies.sessions("# pxname,svname,qcur,qmax,scur,\nweb,FRONTEND,,,4,\n\n") == Sample(4)


@pytest.mark.parametrize("read", [replies.servers_state, replies.connections, replies.sessions, replies.process_info])
def test_another_answer_is_an_error_that_quotes_it(read: object) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match="Unknown command"):
        read("Unknown command: 'show', but maybe\n another\n")
