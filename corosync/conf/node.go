package conf

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// NewNode is a node to enter into a cluster's configuration.
type NewNode struct {
	Name  string
	ID    uint32 // 0 means the smallest free one, or the present one
	Votes *int   // nil means 1, or as many as it has
	// Links are the node's addresses. Without any, Fallback is the address on the
	// cluster's only link.
	Links    map[int]Link
	Fallback string
	// Force allows a node that is there already, with the same id and votes.
	Force bool
	// APIVersion is the join protocol's that the node speaks. With 0 a single link
	// is a fallback address, whatever its number.
	APIVersion int
	// KeepDevice allows an external vote to be configured.
	KeepDevice bool
}

// AddNode returns the configuration with a node entered. A *Refusal: it can't be.
func (f *File) AddNode(a NewNode) (*File, error) {
	if a.APIVersion < 0 {
		return nil, refuse(KindAPIVersion, "join protocol version %d is not supported", a.APIVersion)
	}
	if errors, _ := f.Check(func(string) []netip.Addr { return nil }); len(errors) > 0 {
		return nil, &Refusal{Kind: KindConfigInvalid, Findings: errors}
	}
	if !a.KeepDevice && f.Section("quorum").Has("device") {
		return nil, refuse(KindQDevice, "the cluster has an external vote, whose algorithm depends on the number of nodes: take it away first (pvecm qdevice remove)")
	}
	links, err := f.linksOf(a)
	if err != nil {
		return nil, err
	}
	id, votes, err := f.place(a)
	if err != nil {
		return nil, err
	}
	b := Block{Name: "node", Keys: map[string]string{
		"name":         a.Name,
		"nodeid":       strconv.FormatUint(uint64(id), 10),
		"quorum_votes": strconv.Itoa(votes),
	}}
	for n, address := range links {
		b.Keys["ring"+strconv.Itoa(n)+"_addr"] = address
	}
	return f.Change(func(g *File) error {
		if old := g.Node(a.Name); old != nil {
			if err := g.Remove(old); err != nil {
				return err
			}
		}
		return g.Insert(g.Section("nodelist"), b)
	})
}

// linksOf finds the addresses of a new node.
func (f *File) linksOf(a NewNode) (map[int]string, error) {
	given := map[int]string{}
	for n, l := range a.Links {
		given[n] = l.Address
	}
	fallback, legacy := a.Fallback, false
	if fallback == "" && a.APIVersion == 0 && len(given) == 1 {
		for _, address := range given {
			fallback, legacy = address, true
		}
		given = nil
	}
	if err := f.addressesFree(a.Name, given, fallback); err != nil {
		return nil, err
	}
	nodes := f.Nodes()
	have := Links(nodes[0])
	if len(given) > 0 {
		for _, n := range have {
			if given[n] == "" {
				return nil, refuse(KindLinkNotGiven, "the cluster has links %s: give an address for link %d, too (--link%d)", numbers(have), n, n)
			}
		}
		for _, n := range slices.Sorted(maps.Keys(given)) {
			if !slices.Contains(have, n) {
				return nil, refuse(KindLinkUnknown, "the cluster has links %s only: leave out --link%d", numbers(have), n)
			}
		}
		return given, nil
	}
	switch {
	case fallback == "":
		return nil, refuse(KindNoAddress, "no address is given for the new node: give one for each of the cluster's links, %s", numbers(have))
	case len(have) != 1 && legacy:
		return nil, refuse(KindOneLegacy, "the cluster has links %s, and a node that joins by the old protocol can give one address only", numbers(have))
	case len(have) != 1:
		return nil, refuse(KindOneAddress, "the cluster has links %s: give an address for each of them (--linkN)", numbers(have))
	}
	return map[int]string{have[0]: fallback}, nil
}

// addressesFree refuses addresses that another node has, or that are given twice.
func (f *File) addressesFree(name string, given map[int]string, fallback string) error {
	taken := map[string]string{}
	for _, node := range f.Nodes() {
		if nodeKey(node) == name {
			continue
		}
		for _, key := range addressKeys(node) {
			taken[node.Get(key)] = nodeKey(node)
		}
	}
	own := map[string]bool{}
	check := func(address string) error {
		if other := taken[address]; other != "" {
			return refuse(KindAddressTaken, "address %s belongs to node %s already", address, other)
		}
		if own[address] {
			return refuse(KindAddressTaken, "address %s is given for two links", address)
		}
		own[address] = true
		return nil
	}
	for _, n := range slices.Sorted(maps.Keys(given)) {
		if err := check(given[n]); err != nil {
			return err
		}
	}
	if fallback != "" && len(given) == 0 {
		return check(fallback)
	}
	return nil
}

// place finds a new node's id and votes, and refuses a name that is taken.
func (f *File) place(a NewNode) (id uint32, votes int, err error) {
	votes = 1
	used := map[uint32]string{}
	present := f.Node(a.Name)
	for _, node := range f.Nodes() {
		name := nodeKey(node)
		if name != a.Name {
			used[uint32(number(node.Get("nodeid"), 32))] = name
			if strings.EqualFold(name, a.Name) {
				return 0, 0, refuse(KindNodeExists, "the name %s differs from node %s in upper and lower case only", a.Name, name)
			}
		}
	}
	id = a.ID
	if present != nil {
		hasID := uint32(number(present.Get("nodeid"), 32))
		hasVotes := 1
		if text, ok := present.Lookup("quorum_votes"); ok {
			hasVotes = int(number(text, 31))
		}
		if id == 0 {
			id = hasID
		}
		votes = hasVotes
		if a.Votes != nil {
			votes = *a.Votes
		}
		if !a.Force || id != hasID || votes != hasVotes {
			return 0, 0, refuse(KindNodeExists, "node %s is in the cluster already, with id %d and %d votes", a.Name, hasID, hasVotes)
		}
	} else if a.Votes != nil {
		votes = *a.Votes
	}
	if id == 0 {
		for id = 1; used[id] != ""; id++ {
		}
	}
	if other := used[id]; other != "" {
		return 0, 0, refuse(KindIDTaken, "node id %d belongs to node %s already", id, other)
	}
	return id, votes, nil
}

// FindNode returns the node that a name means: its own, or what stands as its
// address on link 0 or 1. Nil means there is none.
func (f *File) FindNode(name string) *Section {
	for _, node := range f.Nodes() {
		if node.Get("name") == name || node.Get("ring0_addr") == name || node.Get("ring1_addr") == name {
			return node
		}
	}
	return nil
}

// RemoveNode returns the configuration without a node. A *Refusal: it can't be.
func (f *File) RemoveNode(name string, keepDevice bool) (*File, error) {
	node := f.FindNode(name)
	if node == nil {
		return nil, refuse(KindUnknownNode, "there is no node %s in the cluster's corosync.conf", name)
	}
	if !keepDevice && f.Section("quorum").Has("device") {
		return nil, refuse(KindQDevice, "the cluster has an external vote, whose algorithm depends on the number of nodes: take it away first (pvecm qdevice remove)")
	}
	key := nodeKey(node)
	return f.Change(func(g *File) error { return g.Remove(g.Node(key)) })
}

// SetVotes returns the configuration with other votes for a node.
func (f *File) SetVotes(name string, votes int) (*File, error) {
	if f.Node(name) == nil {
		return nil, refuse(KindUnknownNode, "there is no node %s in the cluster's corosync.conf", name)
	}
	return f.Change(func(g *File) error { return g.Set(g.Node(name), "quorum_votes", strconv.Itoa(votes)) })
}

// Has tells whether there is a section of a name in s.
func (s *Section) Has(name string) bool { return s.has(name) }

func numbers(list []int) string {
	var text []string
	for _, n := range list {
		text = append(text, strconv.Itoa(n))
	}
	return strings.Join(text, ", ")
}

// NewCluster is a cluster to be, with its first node.
type NewCluster struct {
	Name             string
	Node             string
	ID               uint32
	Votes            int
	TokenCoefficient int          // milliseconds
	Links            map[int]Link // at least one
}

// Create returns the configuration of a new cluster.
func Create(c NewCluster) (*File, error) {
	node := Block{Name: "node", Keys: map[string]string{
		"name":         c.Node,
		"nodeid":       strconv.FormatUint(uint64(c.ID), 10),
		"quorum_votes": strconv.Itoa(c.Votes),
	}}
	totem := Block{Name: "totem", Keys: map[string]string{
		"version":           "2",
		"cluster_name":      c.Name,
		"config_version":    "1",
		"secauth":           "on",
		"ip_version":        "ipv4-6",
		"link_mode":         "passive",
		"token_coefficient": strconv.Itoa(c.TokenCoefficient),
	}}
	for _, n := range slices.Sorted(maps.Keys(c.Links)) {
		text := strconv.Itoa(n)
		node.Keys["ring"+text+"_addr"] = c.Links[n].Address
		i := Block{Name: "interface", Keys: map[string]string{"linknumber": text}}
		if p, _ := strconv.Atoi(c.Links[n].Priority); p != 0 {
			i.Keys["knet_link_priority"] = strconv.Itoa(p)
		}
		totem.Blocks = append(totem.Blocks, i)
	}
	var b strings.Builder
	for _, block := range []Block{
		{Name: "logging", Keys: map[string]string{"to_syslog": "yes", "debug": "off"}},
		{Name: "nodelist", Blocks: []Block{node}},
		{Name: "quorum", Keys: map[string]string{"provider": "corosync_votequorum"}},
		totem,
	} {
		b.WriteString(strings.Join(block.lines(), "\n") + "\n\n")
	}
	f, err := Read([]byte(b.String()))
	if err != nil {
		return nil, err
	}
	if problems := f.Problems(); len(problems) > 0 {
		return nil, &Refusal{Kind: KindConfigInvalid, Text: "the new cluster's configuration would be wrong", Findings: problems}
	}
	return f, nil
}
