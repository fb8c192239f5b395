package keys

// clientReference returns the keys of the modes whose other end is a server.
func clientReference() []Key {
	rows := []Key{
		{Modes: "`teredo`, `ayiya`, `heartbeat`, `tic`, `tsp`, `json`", Name: "server", Values: "an address or a DNS name, with or without `:PORT`; in `teredo` without", Needed: "always, in `teredo` at a client", Meaning: "the server; without a port that of the protocol: AYIYA 5072, heartbeat 3740, TIC 3874, TSP 3653, JSON 14629"},
		{Modes: "`ayiya`, `heartbeat`", Name: "identity", Values: "an IPv6 address", Needed: "always", Meaning: "address of this end of the tunnel, by which the server knows it; without `address` the interface has it, with /64"},
		{Modes: "`teredo`, `ayiya`, `heartbeat`, `tic`, `tsp`", Name: "password_file", Values: "an absolute path", Needed: "in `ayiya`, `heartbeat` and `tic`; in `teredo` and `tsp` with `user`", Meaning: "file with the password; mode 0600"},
		{Modes: "`ayiya`", Name: "hash", Values: "`sha1`, `sha256`, `md5`", Default: `"sha1"`, Meaning: "hash of the signatures; the server must have the same"},
		{Modes: "`teredo`, `tic`, `tsp`", Name: "user", Values: "a text", Needed: "in `tic`; in `teredo` with `password_file`", Meaning: "user of the account at the server; in `tsp` left out: anonymous; in `teredo`, at the server, too: the name of the clients that are served, left out: all"},
		{Modes: "`tic`", Name: "tunnel_id", Values: "a text, such as `T1234`", Needed: "if the account has several tunnels", Meaning: "the tunnel"},
		{Modes: "`tic`", Name: "starttls", Values: "`auto`, `require`, `off`", Default: `"auto"`, Meaning: "whether the dialogue is encrypted: if the server can, always, or never"},
		{Modes: "`tsp`", Name: "auth", Values: "`auto`, `anonymous`, `plain`, `digest-md5`", Default: `"auto"`, Meaning: "how the account is proved; `auto`: the strongest way that the server offers"},
		{Modes: "`tsp`", Name: "want", Values: "`any`, `v6v4`, `v6udpv4`", Default: `"any"`, Meaning: "what packets travel in: IPv4 (protocol 41), UDP, or what the server chooses"},
		{Modes: "`tsp`", Name: "prefix_length", Values: "48 to 64", Meaning: "length of the prefix that the server is asked to route to this end; left out: none"},
		{Modes: "`json`", Name: "id", Values: "a text", Needed: "always", Meaning: "name by which the server knows this client, such as its MAC address"},
		{Modes: "`json`", Name: "secret_file", Values: "an absolute path", Meaning: "file with a secret of at least 16 bytes that proves the `id`; left out: a server that asks for no proof; mode 0600"},
		{Modes: "`json`", Name: "tls", Values: "`off`, `on`", Default: `"off"`, Meaning: "whether the connection is encrypted"},
		{Modes: "`tic`, `json`", Name: "ca", Values: "an absolute path", Meaning: "file with the certificates that may sign the server's, in PEM; left out: those of the system"},
	}
	for i := range rows {
		rows[i].Table = TableTunnel
	}
	return rows
}
