/* Filters of the capture sockets: forwardable multicast of one interface that the programs do not serve. */
#ifndef ISTHMUS_RELAY_CAPTURE_H
#define ISTHMUS_RELAY_CAPTURE_H

#include "relay_judge.h"

#define WHOLE 0x7fffffff

/* As agent/net/packet_filter.py has it, whose filters these replace. */
static __always_inline int is_forwardable4(struct __sk_buff *skb)
{
	__u8 head[IPV4_HEADER];

	if (bpf_skb_load_bytes_relative(skb, 0, head, sizeof(head), BPF_HDR_START_NET))
		return 0;
	if (head[9] == IPPROTO_IGMP || (head[12] == 169 && head[13] == 254))
		return 0;
	return head[16] >> 4 == 14 && (head[16] != 224 || head[17] || head[18]);
}

static __always_inline int is_forwardable6(struct __sk_buff *skb)
{
	__u8 head[IPV6_HEADER];

	if (bpf_skb_load_bytes_relative(skb, 0, head, sizeof(head), BPF_HDR_START_NET))
		return 0;
	if (head[8] == 0xfe && (head[9] & 0xc0) == 0x80)
		return 0;
	return head[24] == 0xff && (head[25] & 0x0f) >= 3;
}

static __always_inline int capture(struct __sk_buff *skb, __u32 number)
{
	struct packet packet = {};
	__u32 *interface = bpf_map_lookup_elem(&captures, &number);

	/* A socket bound to a parent is shown the frames of its VLAN devices too. */
	if (!interface || skb->ifindex != *interface || skb->pkt_type >= PACKET_OTHERHOST)
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP) ? !is_forwardable4(skb) : !is_forwardable6(skb))
		return 0;
	return judge(skb, &packet) == LEAVE ? WHOLE : 0;
}

#define CAPTURE(number) \
	SEC("socket") int relay_capture_##number(struct __sk_buff *skb) { return capture(skb, number); }

CAPTURE(0)
CAPTURE(1)
CAPTURE(2)
CAPTURE(3)
CAPTURE(4)
CAPTURE(5)
CAPTURE(6)
CAPTURE(7)

#endif
