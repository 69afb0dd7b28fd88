/* Writes each tunnel's addresses and checksums into the packet that goes round, and sends a copy of it. */
#ifndef ISTHMUS_RELAY_SEND_H
#define ISTHMUS_RELAY_SEND_H

#include "relay_wrap.h"

struct sending {
	struct __sk_buff *skb;
	__u32 member;        /* first one of this run */
	__u32 length;        /* of the inner packet */
	__u32 header;        /* sum of the outer IPv4 header but its addresses */
	__u32 datagram;      /* sum of pseudo-header and datagram but the addresses and the gateway's port */
};

static __always_inline void lose(__u32 tunnel, __u32 length, int is_unreachable)
{
	__u32 zero = 0;
	struct losses *losses = bpf_map_lookup_elem(&tunnel_losses, &tunnel);
	__u64 *any = bpf_map_lookup_elem(&lost, &zero);

	if (!losses || !any)
		return;
	(*any)++;
	if (is_unreachable) {
		losses->unreachable_packets++;
		losses->unreachable_octets += length;
	} else {
		losses->dropped_packets++;
		losses->dropped_octets += length;
	}
}

static __always_inline struct tunnel *tunnel_of(struct sending *run, __u32 number, __u32 *index)
{
	__u32 key = run->member + number;
	struct member *member = bpf_map_lookup_elem(&members, &key);

	if (!member)
		return 0;
	*index = member->tunnel;
	return bpf_map_lookup_elem(&tunnels, index);
}

static __always_inline struct adjacency *adjacency_of(struct tunnel *tunnel, __u32 index, struct sending *run)
{
	struct adjacency *found = bpf_map_lookup_elem(&adjacencies, &tunnel->adjacency);

	if (found && found->state == ADJACENCY_READY)
		return found;
	lose(index, run->length, 1);
	return 0;
}

#define AT(type, place) (*(type *)(data + (place)))

static __always_inline void write_link(void *data, struct adjacency *adjacency)
{
#pragma clang loop unroll(full)
	for (int word = 0; word < 6; word++)
		AT(__u16, 2 * word) = adjacency->link[word]; /* larger words would not be aligned: IP headers are */
}

static __always_inline void send(struct sending *run, struct adjacency *adjacency, __u32 index)
{
	if (bpf_clone_redirect(run->skb, adjacency->interface, 0))
		lose(index, run->length, 0);
}

static long send_ipv4(__u32 number, struct sending *run)
{
	__u32 index;
	struct tunnel *tunnel = tunnel_of(run, number, &index);
	struct adjacency *adjacency = tunnel ? adjacency_of(tunnel, index, run) : 0;
	void *data = (void *)(long)run->skb->data, *end = (void *)(long)run->skb->data_end;
	__u16 checksum;

	if (!tunnel || data + OUTER4 > end)
		return 1;
	if (!adjacency)
		return 0;
	write_link(data, adjacency);
	AT(__u16, 24) = ~fold((__u64)run->header + tunnel->address_sum);
	AT(__u32, 26) = *(__u32 *)tunnel->local;
	AT(__u32, 30) = *(__u32 *)tunnel->gateway;
	AT(__u16, 36) = tunnel->port;
	checksum = ~fold((__u64)run->datagram + tunnel->address_sum + tunnel->port);
	AT(__u16, 40) = checksum ? checksum : 0xffff;
	send(run, adjacency, index);
	return 0;
}

static long send_ipv6(__u32 number, struct sending *run)
{
	__u32 index;
	struct tunnel *tunnel = tunnel_of(run, number, &index);
	struct adjacency *adjacency = tunnel ? adjacency_of(tunnel, index, run) : 0;
	void *data = (void *)(long)run->skb->data, *end = (void *)(long)run->skb->data_end;
	__u32 *addresses;
	__u16 checksum;

	if (!tunnel || data + OUTER6 > end)
		return 1;
	if (!adjacency)
		return 0;
	write_link(data, adjacency);
	addresses = (__u32 *)tunnel->local; /* the gateway's follows */
	AT(__u32, 14) = tunnel->flow;
#pragma unroll
	for (int word = 0; word < 8; word++)
		AT(__u32, 22 + 4 * word) = addresses[word];
	AT(__u16, 56) = tunnel->port;
	checksum = ~fold((__u64)run->datagram + tunnel->address_sum + tunnel->port);
	AT(__u16, 60) = checksum ? checksum : 0xffff;
	send(run, adjacency, index);
	return 0;
}

static long lose_one(__u32 number, struct sending *run)
{
	__u32 index;

	if (!tunnel_of(run, number, &index))
		return 1;
	lose(index, run->length, 0);
	return 0;
}

/* What differs between packets but not between tunnels, summed once. */
static __always_inline int sum_headers(struct sending *run, struct settings *settings, struct travel *travel)
{
	void *data = (void *)(long)run->skb->data, *end = (void *)(long)run->skb->data_end;
	__u16 size = bpf_htons(run->length + UDP_HEADER + 2);

	if (data + OUTER4 > end)
		return -1;
	run->header = AT(__u16, 14) + AT(__u16, 16) + AT(__u16, 18) + AT(__u16, 20) + AT(__u16, 22);
	/* The length counts twice, in the pseudo-header and in the header itself. */
	run->datagram = travel->sum + bpf_htons(AMT_DATA) + bpf_htons(IPPROTO_UDP) + settings->port + 2 * size;
	return 0;
}

#endif
