package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"pmxcfs/cmd/internal/host"
)

// Finding is something that is not as the cluster's nodes need it.
type Finding struct {
	Node   string `json:"node"`
	Kind   string `json:"kind"` // a word
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"` // what to do about it, if mending can't
	Fixed  bool   `json:"fixed"`            // it was so, and is mended
}

func (f Finding) String() string {
	text := f.Node + ": " + f.Text
	if f.Fixed {
		return text + " (mended)"
	}
	if f.Remedy != "" {
		text += " (" + f.Remedy + ")"
	}
	return text
}

// checkTimeout is how long a node that does not answer is waited for.
const checkTimeout = 10 * time.Second

// Check looks at keys, certificates and links of this host, and at what this host sees of the
// other nodes: their certificates, and whether it reaches them over ssh. With fix it then
// does what Update does, here and on the nodes that have findings, and says what that has
// mended.
func Check(ctx context.Context, h *host.Host, fix bool) ([]Finding, error) {
	if err := h.Mounted(); err != nil {
		return nil, err
	}
	before, err := findings(ctx, h)
	if err != nil || !fix || len(before) == 0 {
		return before, err
	}
	if err := mend(ctx, h, before); err != nil {
		return before, err
	}
	after, err := findings(ctx, h)
	if err != nil {
		return before, err
	}
	for i, f := range before {
		before[i].Fixed = !slices.ContainsFunc(after, func(g Finding) bool { return g.Node == f.Node && g.Kind == f.Kind })
	}
	for _, g := range after { // which only mending has brought to light
		if !slices.ContainsFunc(before, func(f Finding) bool { return g.Node == f.Node && g.Kind == f.Kind }) {
			before = append(before, g)
		}
	}
	return before, nil
}

// mend does what can be done about findings.
func mend(ctx context.Context, h *host.Host, list []Finding) error {
	if err := h.NeedQuorum(); err != nil {
		return err
	}
	if err := Update(ctx, h, Options{Silent: true}); err != nil {
		return err
	}
	if err := AllowRootLogin(ctx, h); err != nil {
		return err
	}
	members, err := h.Members()
	if err != nil {
		return err
	}
	done := map[string]bool{h.Name: true}
	for _, f := range list {
		m := members.Nodes[f.Node]
		if done[f.Node] || m.Online == 0 || m.IP == "" {
			continue
		}
		done[f.Node] = true
		limited, cancel := context.WithTimeout(ctx, RunLimit)
		if _, err := h.Output(limited, append(h.SSH(f.Node, m.IP, "-o", "ConnectTimeout=10"), "--", "pvecm", "updatecerts", "--silent")...); err != nil {
			h.Warnf("%s can't be mended from here: %v", f.Node, err)
		}
		cancel()
	}
	return nil
}

// checker collects findings.
type checker struct {
	*host.Host
	list []Finding
}

func (c *checker) add(node, kind, remedy, format string, args ...any) {
	c.list = append(c.list, Finding{Node: node, Kind: kind, Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

func findings(ctx context.Context, h *host.Host) ([]Finding, error) {
	c := &checker{Host: h, list: []Finding{}}
	if err := c.local(ctx); err != nil {
		return nil, err
	}
	members, err := h.Members()
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range members.Nodes {
		names = append(names, name)
	}
	if !slices.Contains(names, h.Name) {
		names = append(names, h.Name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := c.certificate(name, members.Nodes[name]); err != nil {
			return nil, err
		}
		if name != h.Name && members.Nodes[name].Online != 0 {
			c.reach(ctx, name, members.Nodes[name].IP)
		}
	}
	return c.list, nil
}

// local looks at this host's own files.
func (c *checker) local(ctx context.Context) error {
	switch info, err := os.Stat(c.Path(host.AuthKey)); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.Mode().Perm()&0o077 != 0:
		c.add(c.Name, "authkey-mode", "chmod 0400 "+host.AuthKey, "corosync's key %s can be read by others than root (mode %04o)", host.AuthKey, info.Mode().Perm())
	case info.Size() < 128:
		c.add(c.Name, "authkey-short", "take it from another node", "corosync's key %s has %d bytes; it needs 128 at least", host.AuthKey, info.Size())
	}
	own, err := readIfThere(c.Host, rootKey+".pub")
	if err != nil {
		return err
	}
	switch all, err := readIfThere(c.Host, clusterKeys); {
	case err != nil:
		return err
	case own == nil:
		c.add(c.Name, "root-key", "", "root has no ssh key (%s.pub)", rootKey)
	case !bytes.Equal(MergeAuthorizedKeys(all, nil, own), MergeAuthorizedKeys(all, nil, nil)):
		c.add(c.Name, "key-not-entered", "", "root's public key is not in the cluster's authorized_keys: other nodes refuse this one")
	}
	switch target, err := os.Readlink(c.Path(rootKeys)); {
	case err != nil:
		c.add(c.Name, "authorized-keys-link", "", "%s is no link to the cluster's file: this node refuses other ones", rootKeys)
	case target != clusterKeys:
		c.add(c.Name, "authorized-keys-link", "make it a link to "+clusterKeys, "%s is a link to %s, not to the cluster's file: this node may refuse other ones", rootKeys, target)
	}
	keys, err := hostKeys(c.Host)
	if err != nil {
		return err
	}
	known, err := readIfThere(c.Host, knownHostsFile(c.Name))
	if err != nil {
		return err
	}
	if want := NodeKnownHosts(c.Name, keys...); !bytes.Equal(known, want) {
		c.add(c.Name, "known-hosts", "", "the cluster knows this host by other ssh keys than it has (%s)", knownHostsFile(c.Name))
	}
	if target, err := os.Readlink(c.Path(systemHosts)); err == nil && target == clusterHosts && allNodesHaveKnownHosts(c.Host) {
		c.add(c.Name, "known-hosts-link", "", "%s is still a link to the cluster's common file, which nothing needs any more", systemHosts)
	}
	if c.Exists("/usr/sbin/sshd") {
		if out, err := c.Output(ctx, "/usr/sbin/sshd", "-T"); err == nil && !RootMayLogIn(out) {
			c.add(c.Name, "root-login", "", "the ssh server does not let root in with a key: other nodes can't reach this one")
		}
	}
	for _, f := range []struct{ kind, path, what string }{
		{"ticket-key", ticketKey, "the key that signs login tickets"},
		{"www-key", wwwKeyFile, "the web server's key"},
		{"ca", caFile, "the cluster's CA certificate"},
		{"ca-key", caKeyFile, "the key of the cluster's CA"},
	} {
		if !c.Exists(f.path) {
			c.add(c.Name, f.kind, "", "%s is missing (%s)", f.what, f.path)
		}
	}
	return nil
}

// certificate looks at a node's certificate.
func (c *checker) certificate(node string, m host.Member) error {
	dir := host.Mount + "/nodes/" + node + "/"
	var text [3][]byte
	for i, path := range []string{dir + "pve-ssl.pem", dir + "pve-ssl.key", caFile} {
		var err error
		if text[i], err = readIfThere(c.Host, path); err != nil {
			return err
		}
	}
	address, err := netip.ParseAddr(m.IP)
	if err != nil {
		if node != c.Name {
			return nil // it has never been online since this daemon's start
		}
		if address, err = c.Address(); err != nil {
			return err
		}
	}
	names := Names{Node: node, Address: address}
	if why := Outdated(text[0], text[1], text[2], names, c.Time()); why != "" {
		c.add(node, "certificate", "\"pvecm updatecerts\" on "+node, "its certificate is not good: %s", why)
	}
	return nil
}

// reach looks whether another node has the ssh keys that the cluster knows, and lets root in.
func (c *checker) reach(ctx context.Context, node, ip string) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	known, err := readIfThere(c.Host, knownHostsFile(node))
	if err != nil || len(known) == 0 {
		c.add(node, "known-hosts", "\"pvecm updatecerts\" on "+node, "the cluster has no ssh host keys of it (%s)", knownHostsFile(node))
	} else if scanned, err := c.Output(ctx, "ssh-keyscan", "-T", "5", ip); err == nil && len(scanned) > 0 {
		seen := map[string]bool{}
		for _, line := range textLines(scanned) {
			if f := strings.Fields(line); len(f) == 3 {
				seen[f[1]+" "+f[2]] = true
			}
		}
		fits := false
		for _, line := range textLines(known) {
			fits = fits || seen[publicKey(line)]
		}
		if !fits {
			c.add(node, "known-hosts", "if it was reinstalled: \"pvecm updatecerts\" on "+node, "its ssh host keys are not those that the cluster knows")
		}
	}
	if _, err := c.Output(ctx, append(c.SSH(node, ip, "-o", "ConnectTimeout=5"), "--", "true")...); err != nil {
		c.add(node, "ssh", "", "root can't log in there over ssh from %s: %v", c.Name, err)
	}
}
