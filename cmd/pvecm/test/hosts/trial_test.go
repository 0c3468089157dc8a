package hosts

import (
	"bytes"
	"fmt"
	"testing"
)

// goesBack has a wrong address applied, and the power go for the node that did it: the
// others go back by themselves, and so does that one when it comes up.
func (s *hosts) goesBack(t *testing.T) {
	members := s.all[:3]
	first, second := members[0], members[1]
	before, err := first.read(conf)
	if err != nil {
		t.Fatal(err)
	}
	first.sh(t, "sed 's/10\\.99\\.0\\.3$/10.99.0.33/' /etc/pve/corosync.conf > /root/wrong.conf; grep -q 10.99.0.33 /root/wrong.conf")
	apply, err := first.Command(within(t, settles), "pvecm", "config", "apply", "/root/wrong.conf", "--timeout", "5")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	apply.Stdout, apply.Stderr = &out, &out
	if err := apply.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- apply.Wait() }()
	eventually(t, settles, func() error {
		select {
		case err := <-ended:
			t.Fatalf("it ended before the change was made (%v):\n%s", err, &out)
		default:
		}
		text, err := second.read(conf)
		if err == nil && !bytes.Contains(text, []byte("10.99.0.33")) {
			err = fmt.Errorf("it isn't made")
		}
		return err
	})
	if err := first.Crash(within(t, settles)); err != nil {
		t.Fatal(err)
	}
	<-ended
	addresses := func(text []byte) string {
		var list []byte
		for line := range bytes.Lines(text) {
			if bytes.Contains(line, []byte("_addr:")) {
				list = append(list, line...)
			}
		}
		return string(list)
	}
	eventually(t, 2*settles, func() error {
		text, err := second.read(conf)
		if err == nil && addresses(text) != addresses(before) {
			err = fmt.Errorf("the others still have\n%s", text)
		}
		return err
	})
	if err := first.Boot(within(t, settles)); err != nil {
		t.Fatal(err)
	}
	are(t, members...)
	for _, h := range members {
		eventually(t, 2*settles, func() error {
			for _, name := range []string{"/var/lib/pve-cluster/config-guard.json", "/etc/systemd/system/pvecm-config-guard.service"} {
				if h.has(name) {
					return fmt.Errorf("%s is left on %s", name, h.Name())
				}
			}
			return nil
		})
	}
}
