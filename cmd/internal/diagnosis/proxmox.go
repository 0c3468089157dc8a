package diagnosis

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Unit is what systemd says of one.
type Unit struct {
	Name    string
	State   string // "active", "failed", "inactive" and so on
	Started uint64 // microseconds after the boot; 0: it never was
}

// daemonUnit is the daemon's.
const daemonUnit = "pve-cluster.service"

// proxmoxUnits are Proxmox VE's services that work with the tree.
var proxmoxUnits = []string{
	"pvedaemon.service", "pveproxy.service", "spiceproxy.service", "pvestatd.service", "pvescheduler.service",
	"pve-firewall.service", "pve-ha-crm.service", "pve-ha-lrm.service", "pve-guests.service",
}

// perlFiles are those of the stock package pve-cluster without which nothing of Proxmox
// VE starts, as patterns.
var perlFiles = []string{
	"usr/share/perl5/PVE/Cluster.pm",
	"usr/share/perl5/PVE/Cluster/IPCConst.pm",
	"usr/share/perl5/PVE/IPCC.pm",
	"usr/lib/*/perl5/*/auto/PVE/IPCC/IPCC.so",
}

// kernelKeys are what the stock package has set at boot for guests' networks and disks.
var kernelKeys = []string{
	"net.bridge.bridge-nf-call-ip6tables", "net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-arptables",
	"net.bridge.bridge-nf-filter-vlan-tagged", "net.ipv4.igmp_link_local_mcast_reports", "fs.aio-max-nr",
}

// proxmox looks at what a host of Proxmox VE needs beside the daemon.
func (f *findings) proxmox(h *Host, _ *Overview) {
	f.check = "proxmox"
	root := or(h.SystemRoot, "/")
	// The library that all of it is built on.
	if _, err := os.Stat(filepath.Join(root, "usr/share/perl5/PVE/INotify.pm")); err != nil {
		return
	}
	const reinstall = "install the stock package again, and the daemon by the package pmxcfs: apt install --reinstall pve-cluster"
	bad := len(f.list)
	var missing []string
	for _, pattern := range perlFiles {
		if found, _ := filepath.Glob(filepath.Join(root, pattern)); len(found) == 0 {
			missing = append(missing, "/"+pattern)
		}
	}
	if len(missing) > 0 {
		f.add(Failure, reinstall, "nothing of Proxmox VE can start without these files of the stock pve-cluster: %s", strings.Join(missing, ", "))
	}
	set := sysctls(root)
	var unset []string
	for _, key := range kernelKeys {
		if !set[strings.ReplaceAll(key, "/", ".")] {
			unset = append(unset, key)
		}
	}
	if len(unset) > 0 {
		f.add(Warning, reinstall+"; or set them in /etc/sysctl.d", "no file of sysctl.d sets what Proxmox VE's guests need: %s", strings.Join(unset, ", "))
	}
	if h.Units != nil {
		f.services(h)
	}
	if len(f.list) == bad {
		f.add(OK, "", "the files and settings that Proxmox VE needs are there, and its services run")
	}
}

// services looks at Proxmox VE's services.
func (f *findings) services(h *Host) {
	units, err := within(askTime, func() ([]Unit, error) { return h.Units(append([]string{daemonUnit}, proxmoxUnits...)) })
	if err != nil {
		f.add(Info, "", "systemd does not say how Proxmox VE's services are: %v", err)
		return
	}
	began := uint64(0)
	var failed, early []string
	for _, u := range units {
		switch {
		case u.Name == daemonUnit:
			began = u.Started
		case u.State == "failed":
			failed = append(failed, u.Name)
		}
	}
	for _, u := range units {
		if u.Name != daemonUnit && u.State == "active" && u.Name != "pve-guests.service" && u.Started > 0 && u.Started < began {
			early = append(early, strings.TrimSuffix(u.Name, ".service"))
		}
	}
	if len(failed) > 0 {
		list := strings.Join(failed, " ")
		f.add(Failure, "see why: journalctl -u "+failed[0]+"; then: systemctl reset-failed "+list+"; systemctl restart "+list, "services of Proxmox VE have failed: %s", list)
	}
	if len(early) > 0 {
		f.add(Info, "after a change from the stock daemon, or if one shows old data: systemctl restart "+strings.Join(early, " "),
			"started before the daemon that runs, and connected to it since: %s", strings.Join(early, ", "))
	}
}

// sysctls returns the keys that the files of sysctl.d(5) set.
func sysctls(root string) map[string]bool {
	set := map[string]bool{}
	files := []string{filepath.Join(root, "etc/sysctl.conf")}
	seen := map[string]bool{} // names of files: the first directory's counts
	for _, dir := range []string{"etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d"} {
		list, _ := filepath.Glob(filepath.Join(root, dir, "*.conf"))
		for _, name := range list {
			if !seen[filepath.Base(name)] {
				seen[filepath.Base(name)] = true
				files = append(files, name)
			}
		}
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			key, _, ok := strings.Cut(strings.TrimSpace(line), "=")
			if key = strings.TrimSpace(strings.TrimPrefix(key, "-")); ok && key != "" && key[0] != '#' && key[0] != ';' {
				set[strings.ReplaceAll(key, "/", ".")] = true
			}
		}
	}
	return set
}

// Units asks systemd how units are. Those that it does not know are left out.
func Units(names []string) ([]Unit, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", append([]string{"show", "--property=Id,LoadState,ActiveState,ExecMainStartTimestampMonotonic"}, names...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("asking systemd: %w", err)
	}
	return parseUnits(out), nil
}

// parseUnits reads what systemctl show says: a paragraph for each unit.
func parseUnits(out []byte) []Unit {
	var units []Unit
	for paragraph := range bytes.SplitSeq(out, []byte("\n\n")) {
		var u Unit
		known := false
		for lines := bufio.NewScanner(bytes.NewReader(paragraph)); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), "=")
			switch key {
			case "Id":
				u.Name = value
			case "LoadState":
				known = value == "loaded"
			case "ActiveState":
				u.State = value
			case "ExecMainStartTimestampMonotonic":
				u.Started, _ = strconv.ParseUint(value, 10, 64)
			}
		}
		if known && u.Name != "" && !slices.ContainsFunc(units, func(o Unit) bool { return o.Name == u.Name }) {
			units = append(units, u)
		}
	}
	return units
}
