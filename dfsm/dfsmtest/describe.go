package dfsmtest

import (
	"fmt"
	"strings"

	"pmxcfs/dfsm"
	"pmxcfs/dfsm/wire"
)

// Describe prints an action on one line.
func Describe(a dfsm.Action) string {
	switch a := a.(type) {
	case dfsm.Send:
		return "send " + DescribeMessage(a.Bytes)
	case dfsm.SendUpdates:
		return "send updates, then " + DescribeMessage(a.Complete)
	case dfsm.DropSends:
		return "drop what is not sent"
	case dfsm.Apply:
		var b strings.Builder
		b.WriteString("apply")
		for _, m := range a.Batch {
			fmt.Fprintf(&b, " %v#%d", m.From, m.Count)
		}
		return b.String()
	case dfsm.TakeState:
		return "take state"
	case dfsm.ProcessStates:
		return fmt.Sprintf("process %d states", len(a.States))
	case dfsm.ApplyUpdates:
		return fmt.Sprintf("apply %d updates", len(a.Payloads))
	case dfsm.Commit:
		return "commit"
	case dfsm.Cleanup:
		return "clean up"
	case dfsm.Checksum:
		return fmt.Sprintf("checksum %d in %v", a.ID, a.Epoch)
	case dfsm.ViewChanged:
		return "view " + dfsm.FormatMembers(a.Members)
	case dfsm.ModeChanged:
		return "mode " + a.Mode.String()
	case dfsm.Reply:
		return fmt.Sprintf("reply %d: %v", a.ID, a.Err)
	case dfsm.Leave:
		if a.Final {
			return "leave for good"
		}
		return "leave"
	case dfsm.Log:
		return fmt.Sprintf("log %v %q", a.Level, a.Text)
	}
	return fmt.Sprintf("%T", a)
}

// DescribeMessage prints the header of a message on one line.
func DescribeMessage(raw []byte) string {
	m, err := wire.Decode(raw)
	if err != nil {
		return fmt.Sprintf("%d bytes: %v", len(raw), err)
	}
	if m.Type == wire.Normal {
		return fmt.Sprintf("normal/%d #%d, %d bytes", m.Subtype, m.Count, len(raw))
	}
	return fmt.Sprintf("%v in %v, %d bytes", m.Type, m.Epoch, len(raw))
}
