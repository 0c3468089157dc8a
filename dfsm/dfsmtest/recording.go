package dfsmtest

import (
	"bufio"
	"compress/gzip"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"pmxcfs/corosync"
	"pmxcfs/dfsm"
)

// RecordKind is what a line of a recording tells.
type RecordKind uint8

// The kinds of lines.
const (
	RecordJoin    RecordKind = iota // the daemon joins the group: it has just started
	RecordLeave                     // it leaves: it stops
	RecordView                      // a configuration change
	RecordDeliver                   // a message came
	RecordMcast                     // the daemon sent a message
	RecordQuorum                    // quorum was told, to all groups
)

var recordKinds = map[string]RecordKind{
	"join": RecordJoin, "leave": RecordLeave, "confchg": RecordView,
	"deliver": RecordDeliver, "mcast": RecordMcast, "quorum": RecordQuorum,
}

// Record is one line of a recording.
type Record struct {
	Line    int // in the file, from 1
	Kind    RecordKind
	Now     uint32 // seconds since 1970
	Members []dfsm.Member
	Joined  bool        // someone is in the change's joined list
	From    dfsm.Member // of RecordDeliver
	Bytes   []byte      // of RecordDeliver and RecordMcast
	Quorate bool
}

//go:embed testdata/node*.jsonl.gz
var recordings embed.FS

// RecordedNode returns what one of three recorded nodes of the stock daemon (1,
// 2, 3) saw and did in a group, "pve_dcdb_v1" or "pve_kvstore_v1": they start
// one after the other with empty databases, write, are cut off, stop and come
// back.
func RecordedNode(node int, group string) ([]Record, error) {
	f, err := recordings.Open(fmt.Sprintf("testdata/node%d.jsonl.gz", node))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("dfsmtest: node %d: %w", node, err)
	}
	return ReadRecording(z, group)
}

// ReadRecording reads what one node's daemon saw and did in one group: JSON
// lines of what crossed the boundary between the daemon and corosync.
func ReadRecording(r io.Reader, group string) ([]Record, error) {
	type member struct{ NodeID, PID uint32 }
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 8<<20)
	var all []Record
	for line := 1; sc.Scan(); line++ {
		var j struct {
			T       float64
			Ev      string
			Group   string
			Members []member
			Joined  []member
			NodeID  uint32
			PID     uint32
			Msg     string
			Quorate int
		}
		if err := json.Unmarshal(sc.Bytes(), &j); err != nil {
			return nil, fmt.Errorf("dfsmtest: recording line %d: %w", line, err)
		}
		kind, ok := recordKinds[j.Ev]
		if !ok {
			return nil, fmt.Errorf("dfsmtest: recording line %d: event %q", line, j.Ev)
		}
		if kind != RecordQuorum && j.Group != group {
			continue
		}
		raw, err := hex.DecodeString(j.Msg)
		if err != nil {
			return nil, fmt.Errorf("dfsmtest: recording line %d: %w", line, err)
		}
		rec := Record{Line: line, Kind: kind, Now: uint32(j.T), Joined: len(j.Joined) > 0, Bytes: raw, Quorate: j.Quorate != 0}
		rec.From = dfsm.Member{Node: corosync.NodeID(j.NodeID), PID: j.PID}
		for _, m := range j.Members {
			rec.Members = append(rec.Members, dfsm.Member{Node: corosync.NodeID(m.NodeID), PID: m.PID})
		}
		all = append(all, rec)
	}
	return all, sc.Err()
}
