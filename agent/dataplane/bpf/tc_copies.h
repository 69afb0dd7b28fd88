/* Sending a socket buffer to all outgoing interfaces of a channel. */
#ifndef ISTHMUS_TC_COPIES_H
#define ISTHMUS_TC_COPIES_H

#include <linux/pkt_cls.h>

#include "count.h"
#include "tc_strip.h"

#define NET_XMIT_CN 2 /* the queue took the packet and is filling up */

/* Write the source address of an outgoing interface. Returns 0, or another number when it is no longer ours to use. */
static __always_inline int write_source(struct __sk_buff *skb, __u32 interface)
{
	struct port *port = bpf_map_lookup_elem(&ports, &interface);

	return !port || bpf_skb_store_bytes(skb, ETH_ALEN, port->address, ETH_ALEN, 0);
}

/* Send a copy by an interface. One that cannot be sent is counted.
 * A function of its own: before Linux 6.3 the verifier wants a loop's last instruction to be the jump to its first. */
static __noinline int copy_out(struct __sk_buff *skb, __u32 interface)
{
	int sent = write_source(skb, interface);

	if (!sent)
		sent = bpf_clone_redirect(skb, interface, 0);
	if (sent && sent != NET_XMIT_CN)
		refuse(OUTPUT_ERROR);
	return 0;
}

/* Copies for all interfaces but the last, which takes the packet itself. A copy that cannot be sent is counted, and the
 * others are sent nevertheless. Returns a verdict. */
static __noinline int copy_to(struct __sk_buff *skb, const struct interface_list *interfaces)
{
	__u32 count = interfaces->count;
	__u32 last = interfaces->index[0]; /* of those seen: what is at a computed place takes CAP_PERFMON */
	__u32 index;

	for (index = 1; index < MOST_INTERFACES; index++) {
		if (index >= count)
			break;
		copy_out(skb, last);
		last = interfaces->index[index];
	}
	if (write_source(skb, last)) {
		refuse(OUTPUT_ERROR);
		return TC_ACT_SHOT;
	}
	return bpf_redirect(last, 0);
}

/* Forward a packet that was found good. Returns a verdict: what was changed never goes on to the socket. */
static __always_inline int strip_and_copy(struct __sk_buff *skb, struct cursor *frame, const struct packet *packet,
					  int version)
{
	struct channel *channel = packet->channel;
	__u32 set = channel->set, length = packet->length;
	struct interface_list *interfaces = bpf_map_lookup_elem(&set_interfaces, &set);
	struct headers headers;
	int size = ETH_HLEN + (version == 4 ? sizeof(headers.ipv4) : sizeof(headers.ipv6));
	int failed;

	if (!interfaces || !interfaces->count || interfaces->count > MOST_INTERFACES || length < least_inner(version) ||
	    make_headers(frame, packet, version, &headers)) {
		leave(NO_ROOM);
		return TC_ACT_UNSPEC;
	}
	/* What stands behind the outer packet means nothing to the socket either. */
	failed = skb->len > packet->at + length && bpf_skb_change_tail(skb, packet->at + length, 0);
	if (!failed)
		failed = strip_buffer(skb, version);
	if (failed > 0) {
		leave(NO_ROOM);
		return TC_ACT_UNSPEC;
	}
	if (failed || (skb->vlan_present && bpf_skb_vlan_pop(skb)) || bpf_skb_store_bytes(skb, 0, &headers.link, size, 0)) {
		refuse(OUTPUT_ERROR);
		return TC_ACT_SHOT;
	}
	/* Once, however many copies: what the program found good. What becomes of the last copy is known behind the
	 * program only; of the others, those that cannot be sent are counted as OUTPUT_ERROR. */
	count_forwarded(channel, length);
	if (channel->announce)
		announce(channel);
	return copy_to(skb, interfaces);
}

#endif
