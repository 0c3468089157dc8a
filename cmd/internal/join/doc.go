// Package join makes this host a node of a cluster, and is the cluster's side of that.
//
// A join changes two hosts, so it is a transaction. Its phases are noted in a journal
// before each begins ([Phase]); a failure takes everything back on both sides, and what
// a killed process left is completed by resuming or taken back by aborting.
//
// There are three ways to the cluster, behind one interface ([Peer]): Proxmox VE's API,
// the stock tool over ssh, and the dialogue of this project over ssh ([Serve]). With the
// last, the node is entered without votes and gets them once it is a member, so that the
// cluster's quorum never depends on a node that isn't there.
package join
