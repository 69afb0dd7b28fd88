/* What the gateway's programs and the agent agree on: keys and values of their maps.
 * The agent's side of it is agent/dataplane/fast/layout.py; a test holds the two together by the object's BTF.
 * Addresses and ports are in network byte order, everything else in the host's. */
#ifndef ISTHMUS_LAYOUT_H
#define ISTHMUS_LAYOUT_H

#include <linux/types.h>

#define MOST_CHANNELS 65536  /* of each family */
#define MOST_TUNNELS 1024
#define MOST_SETS 1024       /* different combinations of outgoing interfaces */
#define MOST_INTERFACES 32   /* in one set, as many as the kernel's multicast routing has */
#define MOST_PORTS 256

/* Who forwards a channel. A packet whose channel belongs to another plane is handed on untouched. */
enum plane {
	PLANE_USERSPACE = 0,
	PLANE_XDP = 1,     /* out of the uplink's driver straight to the outgoing interfaces */
	PLANE_XDP_MFC = 2, /* stripped in the driver, forwarded by the kernel's multicast routing from the tunnel interface */
	PLANE_TC = 3,      /* the same decisions behind the driver, for interfaces without native XDP */
};

/* Reasons of refusal, in the order of agent.dataplane.fast.layout.REFUSALS. */
enum refusal {
	NOT_SUBSCRIBED,
	WRONG_RELAY,
	BAD_AMT_HEADER,
	BAD_INNER_HEADER,
	LINK_LOCAL_GROUP,
	SPOOFED_LOCAL_SOURCE,
	TTL_EXPIRED,
	CONGESTION_LOST,
	OUTPUT_ERROR,
	REFUSALS,
};

/* Why a data message of a tunnel was left to the socket, in the order of agent.dataplane.fast.layout.EXCEPTIONS. */
enum exception {
	OUTER_FRAGMENT,
	OUTER_OPTIONS,
	INNER_OPTIONS,   /* IPv4 options, IPv6 extension headers that routers look at, IGMP */
	TOO_BIG,         /* for one of the outgoing interfaces */
	AGGREGATE,       /* several datagrams joined by GRO or by the sender */
	USERSPACE_CHANNEL,
	NEW_SOURCE,      /* any-source interest of the group */
	NO_ROOM,         /* the packet could not be changed */
	EXCEPTIONS,
};

struct tunnel4_key {
	__be32 local;
	__be16 port;
	__u16 reserved;
};

struct tunnel6_key {
	__u8 local[16];
	__be16 port;
	__u16 reserved;
};

struct tunnel {
	__u8 relay[16];      /* an IPv4 address takes the first four octets */
	__be16 relay_port;
	__u8 strict_port;    /* refuse data from another port of the relay */
	__u8 reserved;
	__u32 vlans;         /* tags its frames carry where the programs see them: the outermost identifier in the upper half,
			      * 0 for none; frames with others are left alone */
	__u32 slot;          /* in tunnel_counters */
	__u8 station[6];     /* MAC address its frames are for, all zero for that of the interface they come in on; others are
			      * left alone. An interface in promiscuous mode gets those too, and a driver does not say so */
	__u8 unused[2];
};

struct channel4_key {
	__be32 source;
	__be32 group;
};

struct channel6_key {
	__u8 source[16];
	__u8 group[16];
};

struct group6_key {
	__u8 group[16];
};

struct channel {
	__u32 slot;          /* in channel_counters */
	__u32 tunnel;        /* slot of the only tunnel it comes through; from another one it is not subscribed */
	__u32 set;           /* in sets and set_interfaces */
	__u32 single;        /* the one outgoing interface, 0 when there are more */
	__u16 limit;         /* longest inner packet, the least MTU of the set */
	__u8 plane;
	__u8 announce;       /* say EVENT_FIRST_PACKET at the next packet; the program clears it */
	__u8 refuse;         /* 0, or 1 + the refusal every packet meets */
	__u8 reserved[3];
};

struct interface_list {
	__u32 count;
	__u32 index[MOST_INTERFACES];
};

struct port {
	__u8 address[6];     /* source of what leaves by the interface */
	__u8 reserved[2];
};

struct traffic {
	__u64 packets;
	__u64 octets;        /* of inner packets, headers included */
};

struct settings {
	__u32 tunnel_interface;    /* index of amt0 */
	__u32 receive_cores;       /* entries of receive_cpus to spread channels over, 0 for none */
	__u8 plain_source[6];      /* source MAC address of packets handed to amt0 … */
	__u8 keep_whole_source[6]; /* … and of those whose Don't Fragment flag is to be set again behind it */
	__u8 secret_plain[6];      /* destination of both between XDP and TC on the uplink: of no station, so that without TC … */
	__u8 secret_keep_whole[6]; /* … nobody takes them, and known to nobody outside, so that TC takes no others */
};

enum event_kind {
	EVENT_FIRST_PACKET = 1,
};

struct event {
	__u32 kind;
	__u32 slot;          /* of the channel */
	__u32 tunnel;        /* slot of the tunnel */
	__u32 reserved;
};

#endif
