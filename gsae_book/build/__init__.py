"""What makes the pages: executed chapters, figures, claims, the PDF."""
