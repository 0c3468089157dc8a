package quorumtool

import (
	"errors"
	"fmt"

	"pmxcfs/corosync"
	"pmxcfs/corosync/votequorum"
)

// SetExpected sets the votes that the cluster expects, on all members, until corosync is
// started again. A refusal by corosync says which numbers it takes.
func SetExpected(votes int) error {
	c, err := votequorum.Open()
	if errors.Is(err, corosync.ErrConnectionLost) {
		return fmt.Errorf("%w (%w)", ErrNoCorosync, err)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.SetExpected(votes)
	if !errors.Is(err, corosync.ErrInvalidParam) {
		return err
	}
	info, ierr := c.GetInfo(0)
	if ierr != nil {
		return errors.Join(err, ierr)
	}
	// It takes no fewer than are present, and no more than those are a majority of.
	lowest, highest := info.TotalVotes, 2*info.TotalVotes-1
	return fmt.Errorf("corosync refuses to expect %s: with %d present it takes %d to %d (%w)", plural(votes, "vote"), info.TotalVotes, lowest, highest, err)
}

// Configured returns the number of votes that the running configuration gives the whole
// cluster, the external vote included: what is expected unless somebody has said otherwise.
func (s *Snapshot) Configured() int {
	votes := 0
	for _, list := range [][]Node{s.Members, s.Absent} {
		for _, n := range list {
			votes += n.Votes
		}
	}
	if s.HasDevice() {
		votes += s.Self.QDeviceVotes
	}
	return votes
}
