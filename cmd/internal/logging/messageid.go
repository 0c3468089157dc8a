package logging

import "pmxcfs/internal/event"

// messageIDs are the journal's ids of events (MESSAGE_ID in
// systemd.journal-fields(7)). They were drawn once (journalctl --new-id128) and never
// change: alerts go by them, and so does the catalog (contrib/systemd/pmxcfs.catalog).
var messageIDs = [...]struct {
	event event.Event
	id    string
}{
	{event.DaemonUp, "0d7da472f7c74d7a90e661353e1f6c13"},
	{event.DaemonStopping, "8ab519b145a5429e81444c155dbf9631"},
	{event.DaemonFailed, "a9c780dcf79e4e3ba39a8485b5db20e9"},
	{event.Stuck, "f5ac942a04c34ad28dd933a79e4436a8"},
	{event.Unstuck, "144a4f6e5d514f89813f35bd1e27093e"},
	{event.HeldUp, "90aacb7de21d407db7c57cc8df431da0"},
	{event.MountEnded, "aad329eb2adc480d8e92988fc0e6ef66"},
	{event.ServiceTaken, "4c07a1f58e0b4d5c9a3ed6f2b1785c40"},
	{event.ServiceUp, "d2b6f0c93a714e5f8c10a7e4596d3b8e"},
	{event.QuorumGained, "b086c6ce1c674b76b001f626aaca8f95"},
	{event.QuorumLost, "a866465e30694d50be81f8e3fb8522be"},
	{event.CorosyncAway, "f1813972fffe405e95803e4535400494"},
	{event.ForeignCorosync, "16098e0d9df247d6a9e7356e1b7319a7"},
	{event.LeftGroup, "3b8aed17419b4f0d917a4850a1da94f9"},
	{event.OutOfGroup, "185175ef808449938b949e554acbf93b"},
	{event.Behind, "564638a1438344fdb77baf6110712d54"},
	{event.SplitLost, "5720a021d28d4a19bfca2bf03fdd8baf"},
	{event.SyncDone, "1382c51d09454080a4a4789caa94d4eb"},
	{event.VerificationFailed, "c0c28e13c4304a48ad97d3fab7d13375"},
	{event.NotDelivered, "498001fdfdd24afd849508008bf10007"},
	{event.MessagesDropped, "a045a711234c4b88a0fa3a06dbc5a4cd"},
	{event.DatabaseFailed, "e3cf23311f294bbd9e5c88685075f048"},
	{event.DiskFull, "b33fac25503b416795c87ca91912d429"},
	{event.DatabaseRecovered, "9a8fdb89987944d69ba3809986437ca0"},
	{event.CheckpointFailed, "2e767c0460fe448c880fa4fc747de24d"},
	{event.Exposed, "5f0c8a1d7b5e4c0f9e2a64d1b83c7f96"},
	{event.BegunAnew, "c3d9e27f16a84bb5a0f7d8254be1936a"},
	{event.Meddled, "91b64e0ad3f74c2e8d5fa7c06f12be83"},
	{event.Duplicate, "7e31fbd97b7c4a93ac91cfd0fda78f31"},
	{event.LockExpired, "6fab11ccb1c8427280be14aac6f91592"},
	{event.LockBroken, "aa6346852e25430c828313cf401f640a"},
	{event.HistoryFailed, "9bd44caf816142b09fce1f438b0e1f1b"},
	{event.HistoryRecovered, "97b0feebce844796858c16ef87c38d48"},
	{event.HistoryDamaged, "8027c74128054218a098cf2d70d24dde"},
	{event.HistoryGap, "c308b5e209974383a2584979216339b6"},
	{event.ConfWritten, "c8bf0c96276d474d8bad6874ad6bb2e6"},
	{event.ConfIgnored, "ef1d244746a446c4a5e774b14145496a"},
	{event.ConfRefused, "4d8e0b6f2a5c4f7c9b13e5d07a86f2c1"},
	{event.ConfFailed, "dae94d3086f14f4e95a2d555290b161f"},
}

// messageID returns the id of an event, "" for none.
func messageID(e event.Event) string {
	for _, m := range messageIDs {
		if m.event == e {
			return m.id
		}
	}
	return ""
}
