/* What the programs use of the kernel's interface (linux/bpf.h), so that they need no
 * headers of the system on which they are built. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define inline static inline __attribute__((always_inline))

/* Fields of a map's definition, which the loader reads from the type information. */
#define NUMBER(name, value) int (*name)[value]
#define TYPE(name, type) type *name

enum { HASH = 1, PERCPU_HASH = 5, LPM_TRIE = 11 }; /* enum bpf_map_type */
enum { NO_PREALLOC = 1 };                           /* flag of a map: memory only for entries in use */

/* Verdicts of a program at a device, where PASS lets the packet go on to the programs and
 * filters of others (TCX_NEXT; TC_ACT_OK would end their list), and of one at a route. */
enum { PASS = -1, DROP = 2, ROUTE_PASS = 0, ROUTE_DROP = 2 };

/* The context of a program: struct __sk_buff as far as it is used. */
struct packet {
	u32 len;
	u32 pkt_type;
	u32 mark;
	u32 queue_mapping;
	u32 protocol;
	u32 vlan_present;
	u32 vlan_tci;
	u32 vlan_proto;
	u32 priority;
	u32 ingress_ifindex;
	u32 ifindex;
	u32 tc_index;
	u32 cb[5];
	u32 hash;
	u32 tc_classid;
	u32 data;
	u32 data_end;
	u32 napi_id;
	u32 family;
	u32 remote_ip4;
	u32 local_ip4;
	u32 remote_ip6[4];
	u32 local_ip6[4];
	u32 remote_port;
	u32 local_port;
	u32 data_meta;
	u64 flow_keys;
	u64 tstamp;
	u32 wire_len;
	u32 gso_segs;
	u64 sk;
	u32 gso_size;
};

/* Helper functions, by number. */
static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*store_bytes)(struct packet *, u32 offset, const void *from, u32 len, u64 flags) = (void *)9;
static long (*redirect)(u32 device, u64 flags) = (void *)23;
static long (*load_bytes)(struct packet *, u32 offset, void *to, u32 len) = (void *)26;
static long (*change_head)(struct packet *, u32 len, u64 flags) = (void *)43;
static long (*adjust_room)(struct packet *, s32 len, u32 mode, u64 flags) = (void *)50;
static long (*push_encap)(struct packet *, u32 type, void *header, u32 len) = (void *)73;
static long (*redirect_neigh)(u32 device, void *params, int len, u64 flags) = (void *)152;

enum { RECOMPUTE_CSUM = 1 };    /* of store_bytes */
enum { TO_INGRESS = 1 };        /* of redirect */
enum { AFTER_MAC_HEADER = 1 };  /* mode of adjust_room */
enum { PUSH_IP = 2 };           /* type of push_encap */

/* Flags of adjust_room. */
enum {
	FIXED_GSO = 1 << 0,
	ENCAP_IPV4 = 1 << 1,
	ENCAP_IPV6 = 1 << 2,
	ENCAP_GRE = 1 << 3,
	NO_CSUM_RESET = 1 << 5,
	DECAP_IPV4 = 1 << 7, /* since Linux 6.3 */
	DECAP_IPV6 = 1 << 8,
};

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define be16(x) __builtin_bswap16(x)
#define be32(x) __builtin_bswap32(x)
#define be64(x) __builtin_bswap64(x)
#else
#define be16(x) (x)
#define be32(x) (x)
#define be64(x) (x)
#endif
