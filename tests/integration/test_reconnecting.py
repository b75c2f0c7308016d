"""A connection that is made anew is as good as a new one."""

from __future__ import annotations

import pytest

from december_plugin.database.outages import server_failure


def test_a_transaction_that_was_cut_off_is_over(database):
    connection = database.connection
    connection.start_transaction()
    connection.close()  # as in an outage, in which no rollback can be sent: DataJoint takes the transaction for open
    assert server_failure(connection) is None
    connection.start_transaction()
    with pytest.raises(Exception, match="Nested connections are not supported"):
        connection.start_transaction()
    connection.cancel_transaction()
