package qdevice

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"time"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/quorumtool"
	"pmxcfs/corosync/cfg"
	"pmxcfs/corosync/votequorum"
)

// Live are the services of the corosync that runs on this host.
func Live() Services {
	return Services{
		Reload: func() error {
			c, err := cfg.Open()
			if err != nil {
				return err
			}
			defer c.Close()
			return c.ReloadConfig()
		},
		Voting: func() (missing []string, err error) {
			s, err := quorumtool.Read()
			if err != nil {
				return nil, err
			}
			for _, n := range s.Members {
				if n.Device&votequorum.FlagQDeviceCastVote == 0 {
					missing = append(missing, n.Name)
				}
			}
			return missing, nil
		},
	}
}

// socket is where the device's daemon answers.
const socket = "/var/run/corosync-qdevice/corosync-qdevice.sock"

// socketTimeout is how long it may take to.
const socketTimeout = 5 * time.Second

// AskState asks the device's daemon on this host how it is.
func AskState(h *host.Host) (map[string]string, error) {
	conn, err := net.DialTimeout("unix", h.Path(socket), socketTimeout)
	if err != nil {
		return nil, fmt.Errorf("corosync-qdevice does not run on this host: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(socketTimeout)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, "status verbose\n"); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(conn, 1<<20)); err != nil {
		return nil, err
	}
	return State(b.Bytes()), nil
}
