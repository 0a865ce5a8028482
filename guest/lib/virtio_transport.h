/*
 * virtio_transport.h: the two virtio transports, each with the same set of functions, for virtio.c
 * alone.
 *
 * Spec: virtio 1.2, 4.1 (PCI), 4.2 (MMIO).
 */
#ifndef GUEST_LIB_VIRTIO_TRANSPORT_H
#define GUEST_LIB_VIRTIO_TRANSPORT_H

#include "guest/lib/virtio.h"

bool virtio_pci_find(struct virtio *, unsigned n);
u8 virtio_pci_status(struct virtio *);
void virtio_pci_set_status(struct virtio *, u8 status);
u64 virtio_pci_features(struct virtio *);
void virtio_pci_accept(struct virtio *, u64 features);
void virtio_pci_enable_interrupts(struct virtio *);
u16 virtio_pci_queue_max(struct virtio *, u16 queue);
void virtio_pci_queue_set(struct virtio *, u16 queue, const struct virtio_rings *);
void virtio_pci_queue_enable(struct virtio *, u16 queue);
void virtio_pci_queue_size(struct virtio *, u16 queue, u16 size);
bool virtio_pci_queue_is_enabled(struct virtio *, u16 queue);
void virtio_pci_notify(struct virtio *, u16 queue);
u8 virtio_pci_generation(struct virtio *);

bool virtio_mmio_find(struct virtio *, unsigned n);
u8 virtio_mmio_status(struct virtio *);
void virtio_mmio_set_status(struct virtio *, u8 status);
u64 virtio_mmio_features(struct virtio *);
void virtio_mmio_accept(struct virtio *, u64 features);
u16 virtio_mmio_queue_max(struct virtio *, u16 queue);
void virtio_mmio_queue_set(struct virtio *, u16 queue, const struct virtio_rings *);
void virtio_mmio_queue_enable(struct virtio *, u16 queue);
void virtio_mmio_queue_size(struct virtio *, u16 queue, u16 size);
bool virtio_mmio_queue_is_enabled(struct virtio *, u16 queue);
void virtio_mmio_notify(struct virtio *, u16 queue);
u8 virtio_mmio_isr(struct virtio *);
u8 virtio_mmio_generation(struct virtio *);

#endif
