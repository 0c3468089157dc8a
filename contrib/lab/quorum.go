package lab

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// pollEvery is how often a wait looks again.
const pollEvery = 50 * time.Millisecond

// Quorum is what a host's corosync says of the cluster.
type Quorum struct {
	Quorate bool
	Members []int // node ids, ascending
}

// Quorum asks the host's corosync (corosync-quorumtool -s).
func (h *Host) Quorum(ctx context.Context) (Quorum, error) {
	// The exit status tells "not quorate" as well as errors: rely on the text.
	out, err := h.Exec(ctx, "corosync-quorumtool", "-s")
	q, ok := parseQuorum(string(out))
	if !ok {
		return q, fmt.Errorf("lab: %s: no quorum status: %q (%v)", h.Name(), out, err)
	}
	return q, nil
}

// parseQuorum reads corosync-quorumtool -s; false means it holds no status.
func parseQuorum(text string) (Quorum, bool) {
	var q Quorum
	found, table := false, false
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "Quorate:":
			found, q.Quorate = true, f[1] == "Yes"
		case len(f) > 1 && f[0] == "Nodeid":
			table = true
		case table && len(f) > 1:
			// "0x00000001" with status, plain decimal in the list
			if n, err := strconv.ParseUint(f[0], 0, 32); err == nil {
				q.Members = append(q.Members, int(n))
			}
		}
	}
	slices.Sort(q.Members)
	return q, found
}

// WaitQuorum waits until every host that runs a corosync is quorate.
func (l *Lab) WaitQuorum(ctx context.Context) error {
	return poll(ctx, pollEvery, func() (bool, error) {
		for _, h := range l.hosts {
			if h.Corosync() == nil {
				continue
			}
			if q, err := h.Quorum(ctx); err != nil || !q.Quorate {
				return false, fmt.Errorf("lab: %s has no quorum (%+v, error: %v)", h.Name(), q, err)
			}
		}
		return true, nil
	})
}

// WaitMembers waits until each of the hosts has exactly these hosts as the
// members of its cluster: after a start, a split, or when one is back.
func (l *Lab) WaitMembers(ctx context.Context, hosts ...int) error {
	want := slices.Sorted(slices.Values(hosts))
	return poll(ctx, pollEvery, func() (bool, error) {
		for _, i := range hosts {
			if q, err := l.Host(i).Quorum(ctx); err != nil || !slices.Equal(q.Members, want) {
				return false, fmt.Errorf("lab: node%d has members %v, not %v (error: %v)", i, q.Members, want, err)
			}
		}
		return true, nil
	})
}
