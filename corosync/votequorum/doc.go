// Package votequorum binds libvotequorum: whether this part of the cluster has
// the majority of votes, and who is in it. votequorum_overview(3).
package votequorum
