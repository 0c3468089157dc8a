package lab

import (
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Cut unplugs a host's network cable.
func (l *Lab) Cut(host int) error {
	l.net.Lock()
	defer l.net.Unlock()
	return l.switchIP(fmt.Sprintf("link set v%d down\n", host))
}

// Heal plugs all cables into one switch: everybody reaches everybody.
func (l *Lab) Heal() error {
	l.net.Lock()
	defer l.net.Unlock()
	var b strings.Builder
	for _, h := range l.hosts {
		fmt.Fprintf(&b, "link set v%d master br0 up\n", h.id)
	}
	return l.switchIP(b.String())
}

// HealHost plugs in one host beside those that were never cut off.
func (l *Lab) HealHost(host int) error {
	l.net.Lock()
	defer l.net.Unlock()
	return l.switchIP(fmt.Sprintf("link set v%d master br0 up\n", host))
}

// Split divides the network: hosts reach those of their own side only. Hosts
// that are in no list form one more side. The links stay up.
func (l *Lab) Split(sides ...[]int) error {
	l.net.Lock()
	defer l.net.Unlock()
	side := make([]int, len(l.hosts)+1) // by host; 0 means the rest, on br0
	for i, hosts := range sides {
		for _, h := range hosts {
			if h < 1 || h > len(l.hosts) {
				return fmt.Errorf("lab: split: no host %d", h)
			}
			if side[h] != 0 {
				return fmt.Errorf("lab: split: host %d is on two sides", h)
			}
			side[h] = i + 1
		}
	}
	var b strings.Builder
	bridges := max(l.bridges, len(sides)+1)
	for i := l.bridges; i < bridges; i++ {
		fmt.Fprintf(&b, "link add br%d type bridge mcast_snooping 0\nlink set br%d up\n", i, i)
	}
	for _, h := range l.hosts {
		fmt.Fprintf(&b, "link set v%d master br%d up\n", h.id, side[h.id])
	}
	if err := l.switchIP(b.String()); err != nil {
		return err
	}
	l.bridges = bridges
	return nil
}

// switchIP runs ip(8) commands where the bridges are.
func (l *Lab) switchIP(batch string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch)
	return runIn(l.pidfd, unix.CLONE_NEWNET, cmd)
}
