// Package quorumtool shows corosync's view of the cluster: quorum, votes, members and the
// external vote.
//
// Read asks corosync through its libraries and returns a Snapshot; everything else is
// a function of that. WriteStatus and WriteNodes print exactly what "corosync-quorumtool -siH"
// and "-l" do, since scripts read that text; Causes says what is wrong in words.
package quorumtool
