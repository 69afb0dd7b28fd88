/* What the relay's programs and the agent agree on: keys and values of their maps.
 * The agent's side of it is agent/dataplane/fanout_kernel_layout.py.
 * Addresses and ports are in network byte order, everything else in the host's. */
#ifndef ISTHMUS_RELAY_LAYOUT_H
#define ISTHMUS_RELAY_LAYOUT_H

#include <linux/types.h>

#define MOST_CHANNELS 65536
#define MOST_LISTS 65536
#define MOST_MEMBERS 524288  /* of all lists together, those about to be forgotten included */
#define MOST_TUNNELS 65536
#define MOST_ADJACENCIES 65536
#define LONGEST_PACKET 9216  /* inner octets; longer ones are userspace's */

struct channel4_key {
	__be32 source;
	__be32 group;
};

struct channel6_key {
	__u8 source[16];
	__u8 group[16];
};

struct channel {
	__u32 list;
	__u32 slot;          /* in channel_counters */
};

/* The tunnels of one or more channels: those with an IPv4 outer header first, then the others. */
struct list {
	__u32 first;         /* in members */
	__u32 ipv4;
	__u32 ipv6;
	__u32 limit;         /* longest inner packet that fits the path of every tunnel */
};

struct member {
	__u32 tunnel;
	__u32 reserved;
};

struct tunnel {
	__u8 local[16];      /* an IPv4 address takes the first four octets */
	__u8 gateway[16];
	__be32 flow;         /* first word of the IPv6 header */
	__u32 address_sum;   /* of both addresses, 16-bit words as they stand in memory, folded */
	__u32 adjacency;
	__be16 port;         /* of the gateway */
	__u16 reserved;
};

enum adjacency_state {
	ADJACENCY_UNKNOWN = 0,
	ADJACENCY_READY = 1,
	ADJACENCY_FAILED = 2, /* the next hop does not answer */
};

/* The next hop, shared by all tunnels behind it. */
struct adjacency {
	__u16 link[6];       /* destination and source MAC addresses, as they go out */
	__u32 interface;
	__u32 state;
	__u32 reserved;
};

struct traffic {
	__u64 packets;
	__u64 octets;        /* of inner packets */
};

/* What did not leave, per tunnel. */
struct losses {
	__u64 unreachable_packets;
	__u64 unreachable_octets;
	__u64 dropped_packets;  /* the interface or its queue did not take them */
	__u64 dropped_octets;
};

enum refusal {
	BAD_INNER_HEADER,
	TTL_EXPIRED,
	REFUSALS,
};

struct settings {
	__u32 mark;          /* of packets on their way round to be copied: nobody outside knows it */
	__u32 chunk;         /* copies one run makes at most */
	__be16 port;         /* ours */
	__be16 fragment;     /* flags and offset of outer IPv4 headers: Don't Fragment or nothing */
	__u8 ttl;
	__u8 hop_limit;
	__u8 reserved[2];
};

#endif
