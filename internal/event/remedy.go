package event

// Remedy says in a line what to do about an event that people are alerted of. Empty:
// nothing has to be done, or the log's line says it. The journal's message catalog
// (contrib/systemd/pmxcfs.catalog) says more.
func (e Event) Remedy() string {
	switch e {
	case DaemonFailed:
		return "see why: journalctl -u pve-cluster -e; then: pmxcfs doctor"
	case Stuck:
		return "look at the load of the host; if it happens again, report it: pmxcfs report"
	case HeldUp:
		return "look at the database's disk (dmesg, iostat), and at corosync: systemctl status corosync"
	case MountEnded:
		return "find out who killed the daemon: journalctl -k (out of memory?)"
	case ServiceTaken:
		return "end that process; the daemon retries by itself"
	case QuorumLost:
		return "see which nodes are missing: pmxcfs status; check them and the network between them"
	case ForeignCorosync:
		return "put the cluster's authkey into /etc/corosync (mode 0400), then: systemctl restart corosync"
	case CorosyncAway:
		return "see whether corosync runs: systemctl status corosync"
	case LeftGroup:
		return "nothing, if it happened once; if it happens again, see the line before, and the database's disk"
	case OutOfGroup:
		return "see the line before for the cause (a newer protocol needs a newer package), then: systemctl restart pve-cluster"
	case VerificationFailed:
		return "list the differences: pmxcfs compare"
	case NotDelivered:
		return "retry the change; if it fails again, check the links: corosync-cfgtool -n"
	case SplitLost:
		return "look at the files where they are kept, beside the database, and copy back what is needed"
	case MessagesDropped:
		return "see why corosync does not go on: systemctl status corosync, corosync-cfgtool -n; later values replace the lost ones"
	case DatabaseFailed, CheckpointFailed:
		return "check the disk of the database's directory: dmesg, df; the daemon retries by itself"
	case DiskFull:
		return "make room on the disk of the database's directory; the daemon retries by itself"
	case Exposed:
		return "if others have an account on this node, renew the keys and passwords below /etc/pve/priv"
	case BegunAnew:
		return "in a cluster nothing; on a single node stop the daemon, look at the files beside the database, and put a good copy in its place: pmxcfs db check COPY"
	case Meddled:
		return "find out which program it was; only the daemon writes to its database while it runs"
	case Duplicate:
		return "find out which of the two is right, and delete the other one"
	case HistoryFailed:
		return "see the line's error; make room on the disk of the database's directory; the daemon retries by itself"
	case HistoryGap:
		return "nothing; the history of another node may have the changes: pmxcfs history, there"
	case HistoryDamaged:
		return "check the disk (dmesg); what is kept can be looked at: pmxcfs history --file FILE"
	case ConfIgnored:
		return "see which copy of corosync.conf is right: pmxcfs status; change it in the tree, with a higher config_version"
	case ConfRefused:
		return "correct it in a copy, with a higher config_version, and move that over corosync.conf in the tree; \"pvecm config\" checks changes before"
	case ConfFailed:
		return "check the file and its disk, and whether corosync accepts it: corosync-cfgtool -R"
	}
	return ""
}
