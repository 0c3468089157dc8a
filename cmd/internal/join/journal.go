package join

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"pmxcfs/cmd/internal/host"
)

// Phase is how far a join is. It is noted before the phase begins.
type Phase string

const (
	Prepared Phase = "prepared" // checked and copied; nothing is changed
	Entered  Phase = "entered"  // the cluster has the node, or is about to
	Switched Phase = "switched" // this host's files are the cluster's, or about to be
	Joined   Phase = "member"   // corosync and the daemon run; the node becomes a member
	Finished Phase = "done"     // it is one; certificate and keys are made
)

const (
	journalFile = "/var/lib/pve-cluster/join.json"
	savedDir    = "/var/lib/pve-cluster/join.saved"
)

// Journal is the note of a join under way.
type Journal struct {
	Phase       Phase     `json:"phase"`
	Peer        string    `json:"peer"` // as it was given
	Via         string    `json:"via"`  // api, ssh or dialogue
	Fingerprint string    `json:"fingerprint,omitempty"`
	Request     Request   `json:"request"`
	Begun       time.Time `json:"begun"`
	Files       []Saved   `json:"files"`    // of the host, as they were
	Corosync    bool      `json:"corosync"` // it ran
	Version     uint64    `json:"config_version,omitempty"`
}

// Saved is a file as it was before the join.
type Saved struct {
	Path   string      `json:"path"`
	Exists bool        `json:"exists"`
	Mode   fs.FileMode `json:"mode,omitempty"`
	Copy   string      `json:"copy,omitempty"`
}

// ReadJournal returns the note of a join under way; nil: there is none.
func ReadJournal(h *host.Host) (*Journal, error) {
	text, err := h.ReadFile(journalFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var j Journal
	if err := json.Unmarshal(text, &j); err != nil {
		return nil, fmt.Errorf("%s: %w", h.Path(journalFile), err)
	}
	return &j, nil
}

// note writes the journal, durably, with a new phase.
func (j *Journal) note(h *host.Host, p Phase) error {
	j.Phase = p
	text, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return err
	}
	return h.WriteFile(journalFile, append(text, '\n'), 0o600)
}

// forget removes the note and the copies.
func (j *Journal) forget(h *host.Host) error {
	err := os.Remove(h.Path(journalFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = host.SyncDir(h.Path("/var/lib/pve-cluster"))
	}
	return errors.Join(err, os.RemoveAll(h.Path(savedDir)))
}
