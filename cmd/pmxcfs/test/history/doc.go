// Package history has clients on the nodes of a real cluster write, read and
// lock while nodes are cut off and killed, records what they were told and when,
// and checks that the record is possible. The hosts are contrib/lab's.
//
// A history is judged by these rules:
//
//   - Writes to a path have one order, which agrees with real time. A node shows
//     a prefix of it that only grows, and has what it acknowledged itself at
//     once. Other nodes may be behind: a read is local. After all are together
//     again, every node shows the end of the order.
//   - A lock, mkdir of a directory below priv/lock, has one holder at a time;
//     a node that got it shows what the holder before wrote.
//   - An entry whose creation was acknowledged is there at the end.
//
// A call that failed may have taken effect or not, until the end of the history,
// as the DFSM protocol has it. Since all values are unique, whoever has read one
// has settled that for a write.
//
// Two things that the protocol doesn't promise are let pass, and no more:
//
//   - Delivery is agreed, not safe. A node that is cut off, or whose corosync
//     dies, may alone have got its own last messages: it acknowledged them and
//     they are gone with the merge. What a node acknowledged from one token
//     timeout before such a fault until it is back counts as failed, if
//     otherwise the history is impossible and no other node has shown it.
//     The test says how often it needed that.
//   - A change that others made is in a node's file after 100 ms. A daemon that
//     was killed and has started again may until it is synchronised show
//     less than before. It must not go back from there either.
//
// The clients are threads of the test, outside the hosts: a daemon that is killed
// takes none of them along, and calls that it was serving are seen to fail. The
// kernel may hold such a daemon until it is started again, because it was waiting
// for the lock of a directory to drop a name and the lock's owner for an answer;
// the test then ends its connection, says so and goes on.
package history
