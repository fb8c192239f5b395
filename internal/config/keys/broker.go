package keys

const (
	TableBroker       = "[broker]"
	TableBrokerListen = "[[broker.listen]]"
)

// brokerReference has the keys of [broker]. They are the last ones, because a key that a wrong
// table has belongs to another table more probably.
var brokerReference = []Key{
	{Table: TableBroker, Name: "interface", Values: "an interface's name", Default: `"six0"`, Meaning: "the interface of the tunnel for all clients"},
	{Table: TableBroker, Name: "store", Values: "an absolute path, or URLs", Default: `"/var/lib/sixfour/broker.db"`, Meaning: "where accounts and leases are: a file, which the daemon makes, or the etcd cluster of several servers"},
	{Table: TableBroker, Name: "store_ca", Values: "an absolute path", Needed: "with URLs", Meaning: "file with the certificate of the authority of the cluster's servers, in PEM"},
	{Table: TableBroker, Name: "store_cert", Values: "an absolute path", Meaning: "file with the certificate by which the cluster knows this server, in PEM"},
	{Table: TableBroker, Name: "store_key", Values: "an absolute path", Needed: "with `store_cert`", Meaning: "file with the private key of that certificate; mode 0600"},
	{Table: TableBroker, Name: "store_prefix", Values: "a text", Meaning: "what all keys in the cluster begin with; left out: /sixfour/broker/"},
	{Table: TableBroker, Name: "name", Values: "a name", Meaning: "name of this server, which no other one with the same cluster has; left out: that of the host"},
	{Table: TableBroker, Name: "pool", Values: prefixes6, Needed: "always", Meaning: "the prefixes that clients are given parts of"},
	{Table: TableBroker, Name: "prefix_length", Values: "48 to 64; with `ndp_proxy` to 120", Default: "64", Meaning: "length of the prefix of a client"},
	{Table: TableBroker, Name: "max_prefix_length", Values: "48 to 64; with `ndp_proxy` to 120", Meaning: "length of the shortest prefix that a client may ask for; left out: as `prefix_length`"},
	{Table: TableBroker, Name: "endpoints", Values: "an IPv6 prefix", Needed: "with `ayiya`, `heartbeat`, `tic` and `tsp`", Meaning: "the ends of tunnels: a /64 for each client, in which ::1 is the broker's and ::2 the client's"},
	{Table: TableBroker, Name: "mtu", Values: "1280 to 1428", Default: "1280", Meaning: "MTU of the tunnels"},
	{Table: TableBroker, Name: "ndp_proxy", Values: "an interface's name", Default: `""`, Meaning: "the interface on which neighbour solicitations for addresses of attached clients are answered, where the pool is not routed to this host; left out: none"},
	{Table: TableBroker, Name: "open", Values: "true, false", Default: "false", Meaning: "clients without an account get a lease, too: `json` with any id, and `tsp` anonymously"},
	{Table: TableBrokerListen, Name: "protocol", Values: "`json`, `ayiya`, `heartbeat`, `tic`, `tsp`", Needed: "always", Meaning: "the protocol of the clients"},
	{Table: TableBrokerListen, Name: "address", Values: "an address", Needed: "always", Meaning: "the address of this host at which clients arrive; 0.0.0.0 or ::, except with `heartbeat`: any"},
	{Table: TableBrokerListen, Name: "port", Values: "1 to 65535", Meaning: "the port; left out: that of the protocol: `json` 14629, `ayiya` 5072, `heartbeat` 3740, `tic` 3874, `tsp` 3653"},
	{Table: TableBrokerListen, Modes: "`json`, `tic`", Name: "tls_certificate", Values: "an absolute path", Meaning: "file with the certificate of this end, in PEM; read again when it changes. Left out: there is no TLS"},
	{Table: TableBrokerListen, Modes: "`json`, `tic`", Name: "tls_key", Values: "an absolute path", Needed: "with `tls_certificate`", Meaning: "file with the private key of the certificate; mode 0600"},
	{Table: TableBrokerListen, Modes: "`json`, `tic`", Name: "required", Values: "true, false", Meaning: "clients without TLS are refused. Left out: true with `tic`, whose server tells passwords, and false with `json`"},
	{Table: TableBrokerListen, Modes: "`ayiya`, `heartbeat`, `tic`", Name: "sha256", Values: "true, false", Default: "false", Meaning: "clients may also prove who they are with SHA-256, which the protocol does not have, but [some clients](broker-clients.md) do"},
}
